import { create, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Channel, Metadata } from "@grpc/grpc-js";
import { CallScope } from "./call-scope.ts";
import type { Init, Message } from "./client.ts";
import { RpcError } from "./errors.ts";
import { fromGrpcStatus } from "./grpc-status.ts";
import type { CallOptions } from "./types.ts";

/** grpc-js's own call object: messages one at a time, which is all that backpressure needs, and no stream classes. */
export type RawCall = ReturnType<Channel["createCall"]>;

/** One method at one server: what a call needs besides its request. */
export type Target = {
  readonly address: string;
  readonly method: DescMethod;
  open(options: CallOptions): { readonly call: RawCall; readonly metadata: Metadata };
};

export function callUnary(target: Target, request: Init, options: CallOptions): Promise<Message> {
  const { promise, resolve, reject } = Promise.withResolvers<Message>();
  const scope = new CallScope(options.signal === undefined ? {} : { signal: options.signal });
  try {
    if (scope.failure !== undefined) throw scope.failure;
    const bytes = encode(target.method, request);
    const { call, metadata } = target.open(options);
    let answer: Uint8Array | undefined;
    call.start(metadata, {
      onReceiveMetadata: () => {},
      onReceiveMessage: (message: Uint8Array) => {
        answer = message;
        call.startRead(); // the status comes after the last message
      },
      onReceiveStatus: (status) => {
        scope.end();
        try {
          if (status.code !== 0) throw fromGrpcStatus(status, target.address);
          resolve(decode(target.method, answer));
        } catch (failure) {
          reject(failure);
        }
      },
    });
    scope.onEnd(() => {
      if (scope.failure === undefined) return;
      reject(scope.failure);
      cancelCall(call);
    });
    call.startRead();
    call.sendMessageWithContext({}, bytes);
    call.halfClose();
  } catch (thrown) {
    scope.end();
    reject(RpcError.from(thrown));
  }
  return promise;
}

/** @throws RpcError INVALID_ARGUMENT for a value that its field cannot hold. */
export function encode(method: DescMethod, request: Init): Buffer {
  try {
    const bytes = toBinary(method.input, create(method.input, request));
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  } catch (cause) {
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "REQUEST_MALFORMED",
      message: `This is no ${method.input.typeName}: ${cause instanceof Error ? cause.message : String(cause)}.`,
      cause,
    });
  }
}

/** @throws RpcError INTERNAL when there is no answer, or none of this method's. */
export function decode(method: DescMethod, bytes: Uint8Array | undefined): Message {
  try {
    if (bytes === undefined) throw new Error("no message came before the status");
    return fromBinary(method.output, bytes);
  } catch (cause) {
    throw new RpcError({
      code: "INTERNAL",
      reason: "ANSWER_MALFORMED",
      message: `The server's answer is no ${method.output.typeName}: it and this client do not speak the same version.`,
      cause,
    });
  }
}

export function cancelCall(call: RawCall): void {
  call.cancelWithStatus(1, "cancelled by the caller");
}

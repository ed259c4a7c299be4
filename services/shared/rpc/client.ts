import type { DescMessage, DescMethod, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { CallOptions, Client, HandlerContext } from "./types.ts";

/** Clients and handlers as transports see them: each method's own types are known only to Client and Handlers. */

export type Message = MessageShape<DescMessage>;
export type Init = MessageInitShape<DescMessage>;

export type UnaryCall = (request: Init, options?: CallOptions) => Promise<Message>;
export type ServerStreamCall = (request: Init, options?: CallOptions) => AsyncIterable<Message>;
export type BidiCall = (requests: AsyncIterable<Init>, options?: CallOptions) => AsyncIterable<Message>;

export type UnaryHandler = (request: Message, context: HandlerContext) => Promise<Init>;
export type ServerStreamHandler = (request: Message, context: HandlerContext) => AsyncIterable<Init>;
export type BidiHandler = (requests: AsyncIterable<Message>, context: HandlerContext) => AsyncIterable<Init>;

/** How one transport makes the function for one method. */
export type MethodCalls = {
  unary(method: DescMethod): UnaryCall;
  serverStream(method: DescMethod): ServerStreamCall;
  bidi(method: DescMethod): BidiCall;
};

/** @throws Error for a client-streaming method: no contract of ours has one. */
export function makeClient<S extends DescService>(desc: S, calls: MethodCalls): Client<S> {
  const client: Record<string, unknown> = {};
  for (const method of desc.methods) client[method.localName] = callOf(method, calls);
  return client as Client<S>;
}

function callOf(method: DescMethod, calls: MethodCalls): unknown {
  switch (method.methodKind) {
    case "unary":
      return calls.unary(method);
    case "server_streaming":
      return calls.serverStream(method);
    case "bidi_streaming":
      return calls.bidi(method);
    case "client_streaming":
      throw new Error(`${method.parent.typeName}/${method.name}: client streaming is not supported`);
  }
}

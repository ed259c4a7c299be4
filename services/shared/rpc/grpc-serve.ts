import { setImmediate } from "node:timers/promises";
import { create, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
} from "@grpc/grpc-js";
import type { Access } from "../../../proto/interlock/v1/access_pb.ts";
import type { Headers } from "../identity.ts";
import type { Log } from "../log.ts";
import { admit, nameOf } from "./access.ts";
import { CallScope, cancelled, timedOut } from "./call-scope.ts";
import type { BidiHandler, Init, Message, ServerStreamHandler, UnaryHandler } from "./client.ts";
import { type CodeName, RpcError } from "./errors.ts";
import { toGrpcStatus } from "./grpc-status.ts";
import { close, END, requestsOf } from "./iterators.ts";
import type { OpenCalls } from "./open-calls.ts";
import { traceParentOf } from "./trace.ts";
import type { Caller, HandlerContext } from "./types.ts";

/** What every served method shares. */
export type Edge = {
  readonly authenticate: (headers: Headers) => Caller;
  readonly log: Log;
  readonly maxMessageBytes: number;
  readonly calls: OpenCalls;
};

/** One method as it is served; made once, so that a call looks nothing up. */
export type Served = {
  readonly edge: Edge;
  readonly method: DescMethod;
  readonly name: string;
  readonly access: readonly Access[];
};

type SurfaceCall = Pick<ServerUnaryCall<Buffer, Buffer>, "metadata" | "getDeadline"> & {
  on(event: "cancelled", listener: () => void): unknown;
};
type WritableCall = ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

export function serveUnary(served: Served, handler: UnaryHandler): handleUnaryCall<Buffer, Buffer> {
  return async (call, callback) => {
    const serving = new Serving(served, call);
    try {
      const context = serving.admit();
      // Not raced with the caller's going away: grpc-js answers then, and the call is over when its work is.
      const answer = encode(served, await handler(decode(served, call.request), context));
      serving.finish(undefined);
      callback(null, answer);
    } catch (thrown) {
      const failure = serving.scope.failure ?? RpcError.from(thrown);
      serving.finish(failure);
      callback(toGrpcStatus(failure));
    } finally {
      served.edge.calls.end(serving.scope);
    }
  };
}

export function serveServerStream(
  served: Served,
  handler: ServerStreamHandler,
): handleServerStreamingCall<Buffer, Buffer> {
  return (call) => {
    void serveStream(served, call, (context) => handler(decode(served, call.request), context));
  };
}

export function serveBidi(served: Served, handler: BidiHandler): handleBidiStreamingCall<Buffer, Buffer> {
  return (call) => {
    void serveStream(served, call, (context, scope) => {
      const source = received(call);
      return handler(
        requestsOf(source, scope, (bytes: Buffer) => decode(served, bytes)),
        context,
      );
    });
  };
}

async function serveStream(
  served: Served,
  call: WritableCall,
  open: (context: HandlerContext, scope: CallScope) => AsyncIterable<Init>,
): Promise<void> {
  const serving = new Serving(served, call);
  const { scope } = serving;
  const { calls } = served.edge;
  calls.addStream(scope);
  let answers: AsyncIterator<Init> | undefined;
  try {
    answers = open(serving.admit(), scope)[Symbol.asyncIterator]();
    for (;;) {
      const step = await scope.race(answers.next());
      if (step.done === true) break;
      if (!call.write(encode(served, step.value))) await scope.race(drained(call));
    }
    serving.finish(undefined);
    call.end();
  } catch (thrown) {
    const failure = scope.failure ?? RpcError.from(thrown);
    serving.finish(failure);
    // grpc-js sends this status after what was written; a call that is gone has had its status.
    if (!call.cancelled) call.emit("error", toGrpcStatus(failure));
    await answers?.return?.().catch(() => {}); // the caller has its answer; this only waits for the handler's end
  } finally {
    calls.end(scope);
  }
}

/** A call's requests in bytes. */
function received(call: ServerDuplexStream<Buffer, Buffer>): AsyncIterator<Buffer, undefined> {
  // A handler that has read enough may go on answering, so its end of reading must not end the stream.
  const source: AsyncIterator<Buffer> = call.iterator({ destroyOnReturn: false });
  return {
    next: async () => {
      const step = await source.next();
      if (step.done !== true) return step;
      // HTTP/2 in Node reports a reset first as the end of data and then as a close. Without this turn of the event
      // loop a handler would take a caller that broke off for one that had said all.
      await setImmediate();
      return END;
    },
    return: async () => {
      close(source);
      return END;
    },
  };
}

/** One call at the edge: who calls, whether they may, what a handler knows, and the line it leaves in the log. */
class Serving {
  readonly scope = new CallScope({});
  readonly #served: Served;
  readonly #call: SurfaceCall;
  readonly #startMs = performance.now();
  readonly #traceParent: string;
  #caller: Caller | undefined;

  constructor(served: Served, call: SurfaceCall) {
    this.#served = served;
    this.#call = call;
    this.#traceParent = traceParentOf(header(call, "traceparent"));
    served.edge.calls.begin();
    // Also said after a good end, when the scope has ended and hears nothing.
    call.on("cancelled", () => this.scope.fail(isLate(call) ? timedOut() : cancelled()));
  }

  /** @throws RpcError when the caller is unknown or not one of those the contract names. */
  admit(): HandlerContext {
    const { edge, access, method, name } = this.#served;
    const caller = edge.authenticate({ get: (key) => header(this.#call, key) });
    this.#caller = caller;
    admit(method, access, caller);
    return {
      caller,
      signal: this.scope.signal,
      deadlineMs: deadlineOf(this.#call),
      traceParent: this.#traceParent,
      method: name,
    };
  }

  finish(failure: RpcError | undefined): void {
    if (failure === undefined) this.scope.end();
    else this.scope.fail(failure);
    const { edge, name } = this.#served;
    const isFault = failure !== undefined && FAULTS.has(failure.code);
    if (!isFault && !edge.log.isLevelEnabled("debug")) return;
    const line = {
      method: name,
      code: failure?.code ?? "OK",
      ...(failure === undefined ? {} : { reason: failure.reason, message: failure.message }),
      ms: Math.round((performance.now() - this.#startMs) * 100) / 100,
      ...(this.#caller === undefined ? {} : { caller: nameOf(this.#caller) }),
      trace: this.#traceParent,
      ...(isFault && failure.cause !== undefined ? { err: failure.cause } : {}),
    };
    if (isFault) edge.log.info(line, "call");
    else edge.log.debug(line, "call");
  }
}

/** Codes that say something is wrong on this side, rather than with the request. */
const FAULTS: ReadonlySet<CodeName> = new Set(["INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS"]);

/** A caller's own deadline fires a little before the one it announced reaches us, and is then seen as a cancel. */
const LATE_MS = 100;

function isLate(call: SurfaceCall): boolean {
  const deadlineMs = deadlineOf(call);
  return deadlineMs !== undefined && Date.now() >= deadlineMs - LATE_MS;
}

function deadlineOf(call: SurfaceCall): number | undefined {
  const deadline = Number(call.getDeadline());
  return Number.isFinite(deadline) ? deadline : undefined;
}

function header(call: SurfaceCall, name: string): string | undefined {
  const value = call.metadata.get(name)[0];
  return typeof value === "string" ? value : undefined;
}

/** What a newer caller sends beyond our contract is ignored. @throws RpcError INVALID_ARGUMENT */
function decode({ method }: Served, bytes: Buffer): Message {
  try {
    return fromBinary(method.input, bytes, { readUnknownFields: false });
  } catch (cause) {
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "REQUEST_MALFORMED",
      message: `These bytes are no ${method.input.typeName}: generate your client from this server's contract.`,
      cause,
    });
  }
}

function encode({ method, edge }: Served, answer: Init): Buffer {
  const bytes = toBinary(method.output, create(method.output, answer));
  if (bytes.length > edge.maxMessageBytes) {
    throw new RpcError({
      code: "RESOURCE_EXHAUSTED",
      reason: "MESSAGE_TOO_LARGE",
      message: `The answer's ${bytes.length} bytes are more than max_message_bytes (${edge.maxMessageBytes}): ask for less.`,
    });
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function drained(call: WritableCall): Promise<void> {
  return new Promise((resolve) => call.once("drain", () => resolve()));
}

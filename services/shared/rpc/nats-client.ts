import { create, type DescMethod, type DescService, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Msg, NatsConnection } from "@nats-io/transport-node";
import { CallScope, cancelled } from "./call-scope.ts";
import { type Init, type Message, makeClient } from "./client.ts";
import { RpcError } from "./errors.ts";
import { close, END } from "./iterators.ts";
import { muxOf, type NatsMux } from "./nats-mux.ts";
import { Inflow, Outflow } from "./nats-stream.ts";
import {
  checkSize,
  type Frame,
  isUnserved,
  parseFailure,
  parseFrame,
  publish,
  requestHeaders,
  SUBJECT,
  WINDOW,
} from "./nats-wire.ts";
import type { Caller, CallOptions, Client } from "./types.ts";

export type NatsClientOptions = {
  readonly caller: Caller;
  /** Of a unary call that brings no deadline of its own. */
  readonly timeoutMs?: number;
};

const TIMEOUT_MS = 30_000;

/** Calls a service that other processes serve on NATS. The connection stays its owner's. */
export function natsClient<S extends DescService>(
  desc: S,
  connection: NatsConnection,
  options: NatsClientOptions,
): Client<S> {
  const mux = muxOf(connection);
  return makeClient(desc, {
    unary:
      (method) =>
      (request, call = {}) =>
        callUnary({ mux, method, options }, request, call),
    serverStream:
      (method) =>
      (request, call = {}) =>
        new NatsStream({ mux, method, options }, { kind: "one", request }, call),
    bidi:
      (method) =>
      (requests, call = {}) =>
        new NatsStream({ mux, method, options }, { kind: "many", requests }, call),
  });
}

type Target = { readonly mux: NatsMux; readonly method: DescMethod; readonly options: NatsClientOptions };

async function callUnary(target: Target, request: Init, options: CallOptions): Promise<Message> {
  const { mux, method } = target;
  // A timeout of our own is no deadline of the caller's: the service is not told of it.
  const untilMs = options.deadlineMs ?? Date.now() + (target.options.timeoutMs ?? TIMEOUT_MS);
  const scope = new CallScope({ ...options, deadlineMs: untilMs });
  try {
    if (scope.failure !== undefined) throw scope.failure;
    const bytes = encode(mux.connection, method, request);
    const answer = Promise.withResolvers<Message>();
    const { call, reply } = mux.open(method.parent.name, {
      onMessage: (message) => {
        try {
          answer.resolve(readAnswer(method, message));
        } catch (error) {
          answer.reject(error);
        }
      },
      onLost: answer.reject,
      alive: undefined,
      silentLooks: 0,
    });
    scope.onEnd(() => mux.close(method.parent.name, call));
    send(target, bytes, { call, reply }, options);
    try {
      return await scope.race(answer.promise);
    } catch (error) {
      if (isNews(scope, options)) sendUp(mux, method, call, { kind: "cancel" });
      throw error;
    }
  } catch (thrown) {
    throw RpcError.from(thrown);
  } finally {
    scope.end();
  }
}

/** The service learns of a caller that gave up; a deadline that it was told of it sees by itself, and as what it is. */
function isNews({ failure }: CallScope, { deadlineMs }: CallOptions): boolean {
  if (failure === undefined) return false;
  return failure.code !== "DEADLINE_EXCEEDED" || deadlineMs === undefined;
}

function readAnswer(method: DescMethod, message: Msg): Message {
  if (isUnserved(message)) throw noResponder(method);
  const frame = parseFrame(message);
  if (frame?.kind === "failure") throw parseFailure(message.data);
  if (frame?.kind !== "answer") throw malformed(method);
  return decode(method, message.data);
}

/** What a stream's caller sends: with the request itself, or after it. */
type Sent =
  | { readonly kind: "one"; readonly request: Init }
  | { readonly kind: "many"; readonly requests: AsyncIterable<Init> };

/** The answers of a stream, as the service sends them. */
class NatsStream implements AsyncIterableIterator<Message, undefined> {
  readonly #target: Target;
  readonly #sent: Sent;
  readonly #options: CallOptions;
  #running: { readonly scope: CallScope; readonly inflow: Inflow } | undefined;
  #done = false;

  constructor(target: Target, sent: Sent, options: CallOptions) {
    this.#target = target;
    this.#sent = sent;
    this.#options = options;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Message, undefined>> {
    if (this.#done) return END;
    try {
      const { scope, inflow } = this.#running ?? this.#start();
      const bytes = await scope.race(inflow.next());
      if (bytes !== undefined) return { done: false, value: decode(this.#target.method, bytes) };
      this.#done = true;
      scope.end();
      return END;
    } catch (thrown) {
      const failure = RpcError.from(thrown);
      this.#done = true;
      this.#running?.scope.fail(failure);
      throw failure;
    }
  }

  async return(): Promise<IteratorResult<Message, undefined>> {
    this.#done = true;
    this.#running?.scope.fail(cancelled());
    return END;
  }

  #start(): { scope: CallScope; inflow: Inflow } {
    const { mux, method } = this.#target;
    const sent = this.#sent;
    const scope = new CallScope(this.#options);
    const inflow = new Inflow((count) => sendUp(mux, method, call, { kind: "credit", count }));
    this.#running = { scope, inflow }; // from here on, whoever fails the call ends its scope
    if (scope.failure !== undefined) throw scope.failure;
    const bytes = sent.kind === "one" ? encode(mux.connection, method, sent.request) : new Uint8Array();
    let finished = false;
    const outflow = new Outflow(WINDOW);
    const { call, reply } = mux.open(method.parent.name, {
      onMessage: (message) => {
        if (isUnserved(message)) return inflow.fail(noResponder(method));
        const frame = parseFrame(message);
        if (frame?.kind === "credit") return outflow.grant(frame.count);
        if (frame?.kind === "failure" || frame?.kind === "end") {
          finished = true;
          mux.close(method.parent.name, call); // it has nothing more to say, however late this is read
        }
        inflow.take(frame, message.data);
      },
      onLost: (error) => inflow.fail(error),
      alive: () => sendUp(mux, method, call, { kind: "alive" }),
      silentLooks: 0,
    });
    scope.onEnd(() => {
      mux.close(method.parent.name, call);
      if (!finished && isNews(scope, this.#options)) sendUp(mux, method, call, { kind: "cancel" });
    });
    send(this.#target, bytes, { call, reply }, this.#options);
    if (sent.kind === "many") {
      const requests = sent.requests[Symbol.asyncIterator]();
      scope.onEnd(() => close(requests));
      const sending = outflow.send(requests, scope, (frame, item) => {
        const data = item === undefined ? undefined : encode(mux.connection, method, item);
        sendUp(mux, method, call, frame, data);
      });
      sending.catch((error: unknown) => scope.fail(RpcError.from(error)));
    }
    return this.#running;
  }
}

function send(target: Target, bytes: Uint8Array, to: { call: string; reply: string }, options: CallOptions): void {
  const { mux, method } = target;
  const subject = SUBJECT.method(method.parent.name, method.name, options.instance);
  const head = { call: to.call, caller: options.caller ?? target.options.caller };
  const headers = requestHeaders({ ...head, deadlineMs: options.deadlineMs, traceParent: options.traceParent });
  mux.connection.publish(subject, bytes, { reply: to.reply, headers });
}

function sendUp(mux: NatsMux, method: DescMethod, call: string, frame: Frame, data?: Uint8Array): void {
  publish(mux.connection, SUBJECT.up(method.parent.name, call), frame, data);
}

function encode(connection: NatsConnection, method: DescMethod, request: Init): Uint8Array {
  const bytes = toBinary(method.input, create(method.input, request));
  checkSize(connection, bytes, "request");
  return bytes;
}

function decode(method: DescMethod, bytes: Uint8Array): Message {
  try {
    return fromBinary(method.output, bytes);
  } catch {
    throw malformed(method);
  }
}

function malformed(method: DescMethod): RpcError {
  return new RpcError({
    code: "INTERNAL",
    reason: "ANSWER_MALFORMED",
    message: `${method.parent.name} answered in a form that this build cannot read; run services of the same version.`,
  });
}

function noResponder(method: DescMethod): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: "NO_RESPONDER",
    message: `No ${method.parent.name} is running on this NATS; start one with interlock serve.`,
    retryAfterMs: 1_000,
  });
}

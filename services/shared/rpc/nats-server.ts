import { create, type DescMethod, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Msg, NatsConnection, Subscription } from "@nats-io/transport-node";
import type { Log } from "../log.ts";
import { CallScope, cancelled } from "./call-scope.ts";
import type { BidiHandler, Init, Message, ServerStreamHandler, UnaryHandler } from "./client.ts";
import { RpcError } from "./errors.ts";
import { END, requestsOf } from "./iterators.ts";
import { Inflow, Outflow } from "./nats-stream.ts";
import {
  ALIVE_EVERY_MS,
  checkSize,
  type Frame,
  failureBytes,
  frameHeaders,
  LOST_AFTER_MS,
  parseFrame,
  parseRequestHead,
  type RequestHead,
  SUBJECT,
  WINDOW,
} from "./nats-wire.ts";
import { methodName, type Service } from "./service.ts";
import { traceParentOf } from "./trace.ts";
import type { HandlerContext } from "./types.ts";

export type NatsServerOptions = {
  /** Replicas of one queue share the requests. */
  readonly queue: string;
  /** Also reachable by this name alone. */
  readonly instance?: string;
  readonly log: Log;
};

/** How long calls may go on once the server stops. */
const DRAIN_MS = 5_000;

/** Serves every method of the services on NATS, for other services of ours. The connection stays its owner's. */
export function serveNats(
  connection: NatsConnection,
  services: readonly Service[],
  options: NatsServerOptions,
): AsyncDisposable {
  return new NatsServer(connection, services, options);
}

/** One call that is worked on. */
type Open = {
  readonly scope: CallScope;
  readonly reply: string;
  readonly inflow: Inflow | undefined;
  readonly outflow: Outflow;
  readonly stream: boolean;
  lastSeenMs: number;
};

class NatsServer implements AsyncDisposable {
  readonly #connection: NatsConnection;
  readonly #log: Log;
  readonly #requests: Subscription[] = [];
  readonly #followUps: Subscription[] = [];
  readonly #open = new Map<string, Open>();
  readonly #sweep: NodeJS.Timeout;
  #onIdle: (() => void) | undefined;

  constructor(connection: NatsConnection, services: readonly Service[], { queue, instance, log }: NatsServerOptions) {
    this.#connection = connection;
    this.#log = log;
    for (const service of services) {
      const { name } = service.desc;
      const callback = (_: unknown, message: Msg): void => this.#take(service, message);
      this.#requests.push(connection.subscribe(SUBJECT.method(name, "*", undefined), { queue, callback }));
      if (instance !== undefined)
        this.#requests.push(connection.subscribe(SUBJECT.method(name, "*", instance), { callback }));
      const follow = (_: unknown, message: Msg): void => this.#followUp(message);
      this.#followUps.push(connection.subscribe(SUBJECT.up(name, "*"), { callback: follow }));
    }
    this.#sweep = setInterval(() => this.#sweepStreams(), ALIVE_EVERY_MS).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const subscription of this.#requests) subscription.unsubscribe();
    for (const { scope, stream } of this.#open.values()) if (stream) scope.fail(stopping());
    const timer = setTimeout(() => {
      for (const { scope } of this.#open.values()) scope.fail(stopping());
    }, DRAIN_MS);
    if (this.#open.size > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    clearTimeout(timer);
    clearInterval(this.#sweep);
    for (const subscription of this.#followUps) subscription.unsubscribe();
  }

  #take(service: Service, message: Msg): void {
    const { reply } = message;
    if (reply === undefined || reply === "") return; // nobody to answer
    const method = service.desc.methods.find((each) => each.name === message.subject.split(".")[3]);
    let head: RequestHead;
    try {
      if (method === undefined) throw unimplemented(message.subject);
      head = parseRequestHead(message.headers);
      if (this.#open.has(head.call)) throw repeated();
    } catch (error) {
      this.#send(reply, { kind: "failure" }, failureBytes(RpcError.from(error)));
      return;
    }
    void this.#serve(service, method, head, reply, message.data);
  }

  async #serve(
    service: Service,
    method: DescMethod,
    head: RequestHead,
    reply: string,
    data: Uint8Array,
  ): Promise<void> {
    const bidi = method.methodKind === "bidi_streaming";
    const scope = new CallScope(head.deadlineMs === undefined ? {} : { deadlineMs: head.deadlineMs });
    const open: Open = {
      ...{ scope, reply },
      inflow: bidi ? new Inflow((count) => this.#send(reply, { kind: "credit", count })) : undefined,
      outflow: new Outflow(WINDOW),
      stream: method.methodKind !== "unary",
      lastSeenMs: performance.now(),
    };
    this.#open.set(head.call, open);
    const startedMs = performance.now();
    let failure: RpcError | undefined;
    try {
      await this.#answer(service, method, head, open, data);
    } catch (thrown) {
      failure = scope.failure ?? RpcError.from(thrown);
      this.#send(reply, { kind: "failure" }, failureBytes(failure));
    } finally {
      scope.end();
      this.#open.delete(head.call);
      if (this.#open.size === 0) this.#onIdle?.();
      this.#logCall(method, failure, performance.now() - startedMs);
    }
  }

  async #answer(service: Service, method: DescMethod, head: RequestHead, open: Open, data: Uint8Array): Promise<void> {
    const { scope, reply, outflow } = open;
    const context: HandlerContext = {
      caller: head.caller,
      signal: scope.signal,
      deadlineMs: head.deadlineMs,
      traceParent: traceParentOf(head.traceParent),
      method: methodName(method),
    };
    if (scope.failure !== undefined) throw scope.failure;
    const handler = service.handlers[method.localName];
    if (method.methodKind === "unary") {
      const answer = await scope.race((handler as UnaryHandler)(decode(method, data), context));
      this.#send(reply, { kind: "answer" }, this.#encode(method, answer));
      return;
    }
    const answers =
      open.inflow === undefined
        ? (handler as ServerStreamHandler)(decode(method, data), context)
        : (handler as BidiHandler)(
            requestsOf(received(open.inflow), scope, (bytes) => decode(method, bytes)),
            context,
          );
    const iterator = answers[Symbol.asyncIterator]();
    try {
      await outflow.send(iterator, scope, (frame, item) => {
        this.#send(reply, frame, item === undefined ? undefined : this.#encode(method, item));
      });
    } catch (error) {
      iterator.return?.().catch(() => {}); // its caller has gone, or is told of the first failure
      throw error;
    }
  }

  #followUp(message: Msg): void {
    const open = this.#open.get(message.subject.slice(message.subject.lastIndexOf(".") + 1));
    const frame = parseFrame(message.headers);
    if (open === undefined || frame === undefined) return; // another replica's, over, or no frame of ours
    open.lastSeenMs = performance.now();
    switch (frame.kind) {
      case "cancel":
        open.scope.fail(cancelled());
        return;
      case "credit":
        open.outflow.grant(frame.count);
        return;
      case "data":
      case "end":
        open.inflow?.take(frame, message.data);
        return;
      case "alive":
      case "answer":
      case "failure":
        return;
    }
  }

  #sweepStreams(): void {
    const nowMs = performance.now();
    for (const { scope, reply, stream, lastSeenMs } of this.#open.values()) {
      if (!stream) continue;
      if (nowMs - lastSeenMs > LOST_AFTER_MS) scope.fail(cancelled());
      else this.#send(reply, { kind: "alive" });
    }
  }

  #encode(method: DescMethod, answer: Init): Uint8Array {
    const bytes = toBinary(method.output, create(method.output, answer));
    checkSize(this.#connection, bytes, "answer");
    return bytes;
  }

  #send(reply: string, frame: Frame, data?: Uint8Array): void {
    if (this.#connection.isClosed()) return;
    this.#connection.publish(reply, data, { headers: frameHeaders(frame) });
  }

  #logCall(method: DescMethod, failure: RpcError | undefined, ms: number): void {
    if (failure === undefined) return;
    const fault = failure.code === "INTERNAL" || failure.code === "UNKNOWN";
    const line = {
      method: methodName(method),
      code: failure.code,
      reason: failure.reason,
      ms: Math.round(ms),
      err: failure.cause,
    };
    if (fault) this.#log.error(line, "rpc");
    else this.#log.debug(line, "rpc");
  }
}

function received(inflow: Inflow): AsyncIterator<Uint8Array, undefined> {
  return {
    next: async () => {
      const value = await inflow.next();
      return value === undefined ? END : { done: false, value };
    },
  };
}

/** @throws RpcError INVALID_ARGUMENT */
function decode(method: DescMethod, bytes: Uint8Array): Message {
  try {
    return fromBinary(method.input, bytes, { readUnknownFields: false });
  } catch (cause) {
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "REQUEST_MALFORMED",
      message: `These bytes are no ${method.input.typeName}; run services of the same version.`,
      cause,
    });
  }
}

function unimplemented(subject: string): RpcError {
  return new RpcError({ code: "UNIMPLEMENTED", reason: "METHOD_UNKNOWN", message: `Nothing here serves ${subject}.` });
}

function repeated(): RpcError {
  return new RpcError({ code: "ALREADY_EXISTS", reason: "CALL_REPEATED", message: "A call of this id is under way." });
}

function stopping(): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: "SERVER_STOPPING",
    message: "This service is stopping; another takes its place in a moment.",
    retryAfterMs: 1_000,
  });
}

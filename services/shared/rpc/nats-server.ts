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
  LOST_AFTER_LOOKS,
  parseFrame,
  parseRequestHead,
  publish,
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
  /** Looks at it since its caller last said something. */
  silentLooks: number;
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
    const refused = (error: Error): void => log.error({ err: error }, "rpc.subscription_refused");
    for (const service of services) {
      const { name } = service.desc;
      const callback = (error: Error | null, message: Msg): void =>
        error === null ? this.#take(service, message) : refused(error);
      this.#requests.push(connection.subscribe(SUBJECT.method(name, "*", undefined), { queue, callback }));
      if (instance !== undefined)
        this.#requests.push(connection.subscribe(SUBJECT.method(name, "*", instance), { callback }));
      const follow = (error: Error | null, message: Msg): void =>
        error === null ? this.#followUp(message) : refused(error);
      this.#followUps.push(connection.subscribe(SUBJECT.up(name, "*"), { callback: follow }));
    }
    this.#sweep = setInterval(() => this.#sweepStreams(), ALIVE_EVERY_MS).unref();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const timer = setTimeout(() => {
      for (const { scope } of this.#open.values()) scope.fail(stopping());
    }, DRAIN_MS);
    await this.#takeNoMore();
    for (const { scope, stream } of this.#open.values()) if (stream) scope.fail(stopping());
    if (this.#open.size > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    clearTimeout(timer);
    clearInterval(this.#sweep);
    for (const subscription of this.#followUps) subscription.unsubscribe();
  }

  /** Requests that NATS had sent by the time it heard of this are taken: nobody else will. */
  async #takeNoMore(): Promise<void> {
    const drained = Promise.allSettled(this.#requests.map((subscription) => subscription.drain()));
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, DRAIN_MS); // NATS itself may be gone
    await Promise.race([drained, late]);
    clearTimeout(timer);
  }

  #take(service: Service, message: Msg): void {
    const { reply } = message;
    if (reply === undefined || reply === "") return; // nobody to answer
    const method = service.desc.methods.find((each) => each.name === message.subject.split(".")[3]);
    let head: RequestHead;
    try {
      if (method === undefined) throw unimplemented(message.subject);
      head = parseRequestHead(message);
      if (this.#open.has(head.call)) throw repeated();
    } catch (error) {
      this.#fail(reply, RpcError.from(error));
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
      silentLooks: 0,
    };
    this.#open.set(head.call, open);
    const startedMs = performance.now();
    let failure: RpcError | undefined;
    try {
      await this.#answer(service, method, head, open, data);
    } catch (thrown) {
      failure = scope.failure ?? RpcError.from(thrown);
      this.#fail(reply, failure);
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
    const frame = parseFrame(message);
    if (open === undefined || frame === undefined) return; // another replica's, over, or no frame of ours
    open.silentLooks = 0;
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
    for (const open of this.#open.values()) {
      if (!open.stream) continue;
      if (++open.silentLooks >= LOST_AFTER_LOOKS) open.scope.fail(cancelled());
      else this.#send(open.reply, { kind: "alive" });
    }
  }

  #encode(method: DescMethod, answer: Init): Uint8Array {
    const bytes = toBinary(method.output, create(method.output, answer));
    checkSize(this.#connection, bytes, "answer");
    return bytes;
  }

  #send(reply: string, frame: Frame, data?: Uint8Array): void {
    publish(this.#connection, reply, frame, data);
  }

  #fail(reply: string, failure: RpcError): void {
    this.#send(reply, { kind: "failure" }, failureBytes(this.#connection, failure));
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

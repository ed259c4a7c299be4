import { createInbox, type Msg, type NatsConnection, nuid, type Subscription } from "@nats-io/transport-node";
import { RpcError } from "./errors.ts";
import { ALIVE_EVERY_MS, LOST_AFTER_LOOKS } from "./nats-wire.ts";

/** One call that waits for something on the mux. */
export type Pending = {
  readonly onMessage: (message: Msg) => void;
  readonly onLost: (error: RpcError) => void;
  /** A stream is sent a sign of life, and is given up when none comes back; undefined for a unary call. */
  readonly alive: (() => void) | undefined;
  /** Looks at it since it last heard something. */
  silentLooks: number;
};

/**
 * The answers to all calls of one connection, on one subscription: a call costs no round trip to set up. The service's
 * name is part of where it answers, `<inbox>.<Service>.<call>`, so that NATS can hold each service to its own answers.
 */
export class NatsMux {
  readonly #connection: NatsConnection;
  readonly #inbox: string;
  readonly #subscription: Subscription;
  readonly #pending = new Map<string, Pending>();
  #connected = true;
  #sweep: NodeJS.Timeout | undefined;

  constructor(connection: NatsConnection, inboxPrefix: string | undefined) {
    this.#connection = connection;
    this.#inbox = createInbox(inboxPrefix);
    this.#subscription = connection.subscribe(`${this.#inbox}.*.*`, {
      callback: (error, message) => (error === null ? this.#take(message) : this.#lose(notAllowed(error))),
    });
    void this.#followStatus();
  }

  get connection(): NatsConnection {
    return this.#connection;
  }

  /** @throws RpcError UNAVAILABLE at once while NATS is gone: waiting for it is the caller's choice. */
  open(service: string, pending: Pending): { call: string; reply: string } {
    if (!this.#connected || this.#connection.isClosed()) throw connectionLost();
    const call = nuid.next();
    const key = `${service}.${call}`;
    this.#pending.set(key, pending);
    if (pending.alive !== undefined) this.#sweep ??= setInterval(() => this.#sweepStreams(), ALIVE_EVERY_MS).unref();
    return { call, reply: `${this.#inbox}.${key}` };
  }

  close(service: string, call: string): void {
    this.#pending.delete(`${service}.${call}`);
  }

  #take(message: Msg): void {
    const pending = this.#pending.get(message.subject.slice(this.#inbox.length + 1));
    if (pending === undefined) return; // too late
    pending.silentLooks = 0;
    pending.onMessage(message);
  }

  #sweepStreams(): void {
    let streams = 0;
    for (const [key, pending] of this.#pending) {
      if (pending.alive === undefined) continue;
      streams++;
      pending.alive();
      if (++pending.silentLooks < LOST_AFTER_LOOKS) continue;
      this.#pending.delete(key);
      pending.onLost(peerLost());
    }
    if (streams > 0) return;
    clearInterval(this.#sweep);
    this.#sweep = undefined;
  }

  async #followStatus(): Promise<void> {
    for await (const { type } of this.#connection.status()) {
      if (type === "disconnect") this.#disconnect();
      else if (type === "reconnect") this.#connected = true;
      else if (type === "close") break;
    }
    this.#disconnect();
    this.#subscription.unsubscribe();
  }

  #disconnect(): void {
    this.#connected = false;
    this.#lose(connectionLost());
  }

  /** What was asked may have been done: the caller is told so, and at once. */
  #lose(why: RpcError): void {
    const lost = [...this.#pending.values()];
    this.#pending.clear();
    for (const pending of lost) pending.onLost(why);
  }
}

const muxes = new WeakMap<NatsConnection, NatsMux>();

export function muxOf(connection: NatsConnection): NatsMux {
  const known = muxes.get(connection);
  if (known !== undefined) return known;
  const mux = new NatsMux(connection, inboxPrefixOf(connection));
  muxes.set(connection, mux);
  return mux;
}

/** A NATS user may be let near its own inboxes only, and has set their prefix when it connected. */
function inboxPrefixOf(connection: NatsConnection): string | undefined {
  const { options } = connection as unknown as { readonly options?: { readonly inboxPrefix?: string } };
  return options?.inboxPrefix;
}

function connectionLost(): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: "CONNECTION_LOST",
    message: "NATS does not answer, so no service can be reached; send the request again once it is back.",
    retryAfterMs: 1_000,
  });
}

/** NATS has ended the subscription: no answer will ever come. */
function notAllowed(cause: Error): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: "CONNECTION_LOST",
    message: "NATS does not let this process hear answers; mend its user's permissions there.",
    cause,
  });
}

function peerLost(): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: "PEER_LOST",
    message: "The service that worked on this has gone silent; it may have ended in the middle.",
    retryAfterMs: 1_000,
  });
}

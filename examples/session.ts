import type { MessageInitShape } from "@bufbuild/protobuf";
import type { SessionRequestSchema, SessionResponse } from "../proto/interlock/v1/broker_pb.ts";
import { type BrokerService, type Call, CallState } from "../proto/interlock/v1/broker_pb.ts";
import { RpcError } from "../services/shared/rpc/errors.ts";
import { fromStatus } from "../services/shared/rpc/status.ts";
import type { Client } from "../services/shared/rpc/types.ts";

/**
 * An agent's end of the broker's `Session` stream: many calls in flight on one stream, each answered by its own id.
 *
 * S1. Every call that was sent is answered exactly once, by an answer or, when the stream ends first, by an error.
 * S2. A call that waits for people is answered twice: `parked` when it starts to wait, then `ended`.
 */

export type Answer =
  /** The call has ended: see its state. */
  | { readonly kind: "ended"; readonly call: Call }
  /** It did not run. */
  | { readonly kind: "refused"; readonly error: RpcError };

export type InFlight = {
  /** Resolves when people were asked, or with undefined once the call has ended without. */
  readonly parked: Promise<Call | undefined>;
  /** Rejects when the stream ended before the call did. */
  readonly ended: Promise<Answer>;
  cancel(): void;
};

type Outgoing = MessageInitShape<typeof SessionRequestSchema>;
type Waiting = {
  readonly parked: PromiseWithResolvers<Call | undefined>;
  readonly ended: PromiseWithResolvers<Answer>;
};

export class AgentSession implements AsyncDisposable {
  readonly #outbox = new Outbox();
  readonly #waiting = new Map<bigint, Waiting>();
  readonly #reading: Promise<void>;
  readonly #stop = new AbortController();
  #lastId = 0n;
  #broken: RpcError | undefined;

  constructor(broker: Client<typeof BrokerService>, session: string) {
    this.#outbox.push({ kind: { case: "open", value: { session } } });
    this.#reading = this.#read(broker.session(this.#outbox, { signal: this.#stop.signal }));
  }

  /** Set once the stream has ended: nothing more can be sent on it. */
  get broken(): RpcError | undefined {
    return this.#broken;
  }

  call(tool: string, argumentsJson: string, idempotencyKey: string): InFlight {
    const requestId = ++this.#lastId;
    const waiting: Waiting = { parked: Promise.withResolvers(), ended: Promise.withResolvers() };
    // Whoever awaits only one of the two is not to be killed by the other.
    waiting.parked.promise.catch(() => {});
    waiting.ended.promise.catch(() => {});
    if (this.#broken === undefined) {
      this.#waiting.set(requestId, waiting);
      this.#outbox.push({ kind: { case: "call", value: { requestId, tool, argumentsJson, idempotencyKey } } });
    } else fail(waiting, this.#broken);
    const cancel = () => this.#outbox.push({ kind: { case: "cancel", value: { requestId } } });
    return { parked: waiting.parked.promise, ended: waiting.ended.promise, cancel };
  }

  async #read(responses: AsyncIterable<SessionResponse>): Promise<void> {
    let end = new RpcError({ code: "UNAVAILABLE", reason: "STREAM_ENDED", message: "The session's stream has ended." });
    try {
      for await (const response of responses) this.#answer(response);
    } catch (error) {
      end = RpcError.from(error);
    }
    this.#broken = end;
    for (const waiting of this.#waiting.values()) fail(waiting, end);
    this.#waiting.clear();
  }

  #answer(response: SessionResponse): void {
    const { kind } = response;
    if (response.requestId === 0n) {
      if (kind.case === "error") throw fromStatus(kind.value);
      return;
    }
    const waiting = this.#waiting.get(response.requestId);
    if (waiting === undefined) return;
    if (kind.case === "call" && kind.value.state === CallState.PENDING_APPROVAL) waiting.parked.resolve(kind.value);
    else if (kind.case === "call") this.#end(response.requestId, waiting, toAnswer(kind.value));
    else if (kind.case === "error") {
      this.#end(response.requestId, waiting, { kind: "refused", error: fromStatus(kind.value) });
    }
  }

  #end(requestId: bigint, waiting: Waiting, answer: Answer): void {
    this.#waiting.delete(requestId);
    waiting.parked.resolve(undefined);
    waiting.ended.resolve(answer);
  }

  /** Sends no more, and waits until what is in flight was answered or the stream broke. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#outbox.close();
    if (this.#waiting.size > 0) this.#stop.abort();
    await this.#reading;
  }
}

/** A call as it stands at its end; one that was refused tells why by its error. */
export function toAnswer(call: Call): Answer {
  return call.state === CallState.REFUSED && call.refusal !== undefined
    ? { kind: "refused", error: fromStatus(call.refusal) }
    : { kind: "ended", call };
}

function fail(waiting: Waiting, error: RpcError): void {
  waiting.parked.reject(error);
  waiting.ended.reject(error);
}

/** What is still to be sent, in order. */
class Outbox implements AsyncIterable<Outgoing> {
  readonly #items: Outgoing[] = [];
  #wake: (() => void) | undefined;
  #closed = false;

  push(item: Outgoing): void {
    if (this.#closed) return;
    this.#items.push(item);
    this.#wake?.();
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Outgoing> {
    for (;;) {
      const item = this.#items.shift();
      if (item !== undefined) yield item;
      else if (this.#closed) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

import { MAX_AT_ONCE } from "../../shared/nesting.ts";
import type { RpcError } from "../../shared/rpc/errors.ts";
import type { CallAnswer, RunIo } from "../backend.ts";
import type { FromRun } from "./worker-process.ts";

type Ask = Extract<FromRun, { kind: "ask" | "fetch" }>;
/** Performs a request that a program made, and answers with a reply. Never rejects. */
export type Fetch = (json: string, signal: AbortSignal) => Promise<string>;

/**
 * The calls and requests that one program makes: so many at once, the others in turn, and none outlives the program. A worker that
 * was taken over can ask for more than it may; it gets no answer.
 */
export class Asks {
  readonly #io: RunIo;
  readonly #fetch: Fetch | undefined;
  readonly #most: number;
  readonly #reply: (id: number, json: string) => void;
  readonly #stop = new AbortController();
  readonly #going = new Set<Promise<void>>();
  #waiting: Ask[] = [];
  #taken = 0;

  constructor(io: RunIo, fetch: Fetch | undefined, most: number, reply: (id: number, json: string) => void) {
    this.#io = io;
    this.#fetch = fetch;
    this.#most = most;
    this.#reply = reply;
  }

  take(ask: Ask): void {
    if (++this.#taken > this.#most || this.#stop.signal.aborted) return;
    this.#waiting.push(ask);
    this.#next();
  }

  /** Ends what is under way, and resolves once all of it has ended. */
  async end(): Promise<void> {
    this.#waiting = [];
    this.#stop.abort();
    await Promise.all(this.#going);
  }

  #next(): void {
    while (this.#going.size < MAX_AT_ONCE) {
      const ask = this.#waiting.shift();
      if (ask === undefined) return;
      const going = this.#answer(ask).finally(() => {
        this.#going.delete(going);
        this.#next();
      });
      this.#going.add(going);
    }
  }

  async #answer(ask: Ask): Promise<void> {
    const { signal } = this.#stop;
    const reply = ask.kind === "fetch" ? await this.#fetch?.(ask.json, signal) : await this.#call(ask, signal);
    if (reply !== undefined && !signal.aborted) this.#reply(ask.id, reply);
  }

  async #call({ name, json }: Extract<Ask, { kind: "ask" }>, signal: AbortSignal): Promise<string | undefined> {
    const answer = await this.#io.onCall?.({ tool: name, argumentsJson: json }, signal);
    return answer && toReply(answer);
  }
}

/** As the standard library inside reads it. */
function toReply(answer: CallAnswer): string {
  switch (answer.kind) {
    case "value":
      return `{"ok":true${answer.json === "" ? "" : `,"value":${answer.json}`}}`;
    case "error":
      return JSON.stringify({ ok: false, error: toFields(answer.error) });
  }
}

function toFields({ code, reason, message, field, retryAfterMs, metadata }: RpcError): object {
  const { stage, call_id: callId } = metadata;
  return { code, reason, message, field, retryAfterMs, stage, callId };
}

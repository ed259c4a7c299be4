import type { Log } from "../shared/log.ts";

/**
 * What must be done and may be done twice: tried at once, then again and again with growing pauses. It lives in memory;
 * what a crash loses is found again in the journal (open-calls.ts) or ends with its lease.
 */
export class Outbox implements AsyncDisposable {
  readonly #log: Log;
  /** When each was sent, oldest first. */
  readonly #open = new Map<Promise<void>, number>();
  readonly #stop = new AbortController();

  constructor(log: Log) {
    this.#log = log;
  }

  send(what: string, attempt: () => Promise<unknown>): void {
    const work = this.#deliver(what, attempt).finally(() => this.#open.delete(work));
    this.#open.set(work, performance.now());
  }

  /** Whether all that was sent before `atMs` (performance.now) has arrived. */
  isQuietSince(atMs: number): boolean {
    for (const sentMs of this.#open.values()) return sentMs >= atMs;
    return true;
  }

  /** What is under way ends; what would have to wait is given up. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#open.keys());
  }

  async #deliver(what: string, attempt: () => Promise<unknown>): Promise<void> {
    for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 5_000)) {
      try {
        await attempt();
        return;
      } catch (error) {
        if (!isPassing(error)) {
          this.#log.warn({ err: error, what }, "outbox.refused");
          return;
        }
        if (this.#stop.signal.aborted) {
          this.#log.warn({ err: error, what }, "outbox.given-up");
          return;
        }
      }
      await pause(pauseMs, this.#stop.signal);
    }
  }
}

const PASSING: readonly string[] = [
  "UNAVAILABLE",
  "DEADLINE_EXCEEDED",
  "ABORTED",
  "RESOURCE_EXHAUSTED",
  "UNKNOWN",
  "INTERNAL",
];

function isPassing(error: unknown): boolean {
  return error instanceof Error && "code" in error && PASSING.includes(String(error.code));
}

/** Ends early, without an error, when the signal aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

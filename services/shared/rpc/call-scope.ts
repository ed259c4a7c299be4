import { RpcError } from "./errors.ts";
import type { CallOptions } from "./types.ts";

/** Node's timers cannot wait longer: a deadline beyond it (24 days) is none. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * One call's life on one side: it ends once, well or with a failure. A failure aborts the signal and rejects whoever
 * waits at that moment, so a caller is answered in time even by a handler that ignores its signal.
 */
export class CallScope {
  readonly #controller = new AbortController();
  readonly #waiting = new Set<(failure: RpcError) => void>();
  readonly #enders: (() => void)[] = [];
  #ended = false;
  #failure: RpcError | undefined;

  constructor(options: Pick<CallOptions, "signal" | "deadlineMs">) {
    const { signal, deadlineMs } = options;
    if (signal !== undefined) this.#follow(signal);
    if (deadlineMs !== undefined) this.#expireAt(deadlineMs);
  }

  /** The handler's signal: aborts with a TimeoutError, an AbortError or the RpcError that ended the call. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Why the call ended early; undefined while it goes on and after a good end. */
  get failure(): RpcError | undefined {
    return this.#failure;
  }

  /** Runs once when the call ends, however it ends; at once when it has. */
  onEnd(ender: () => void): void {
    if (this.#ended) ender();
    else this.#enders.push(ender);
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const ender of this.#enders) ender();
  }

  fail(reason: Error): void {
    if (this.#ended) return;
    this.#failure = RpcError.from(reason);
    this.#controller.abort(reason);
    for (const reject of this.#waiting) reject(this.#failure);
    this.#waiting.clear();
    this.end();
  }

  /** The work's outcome, or the call's failure if that comes first. */
  race<T>(work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#failure !== undefined) reject(this.#failure);
      else this.#waiting.add(reject);
      // Settling twice does nothing, and work that fails after the call is over is nobody's unhandled rejection.
      work.then(resolve, reject).finally(() => this.#waiting.delete(reject));
    });
  }

  #follow(signal: AbortSignal): void {
    const stop = () => this.fail(isTimeout(signal.reason) ? signal.reason : cancelled());
    if (signal.aborted) {
      stop();
    } else {
      signal.addEventListener("abort", stop, { once: true });
      this.onEnd(() => signal.removeEventListener("abort", stop));
    }
  }

  #expireAt(deadlineMs: number): void {
    const leftMs = deadlineMs - Date.now();
    if (leftMs <= 0) {
      this.fail(timedOut());
    } else if (leftMs <= MAX_TIMER_MS) {
      const timer = setTimeout(() => this.fail(timedOut()), leftMs);
      this.onEnd(() => clearTimeout(timer));
    }
  }
}

export function timedOut(): Error {
  return new DOMException("The deadline passed.", "TimeoutError");
}

export function cancelled(): Error {
  return new DOMException("The caller cancelled the request.", "AbortError");
}

function isTimeout(reason: unknown): reason is Error {
  return reason instanceof Error && reason.name === "TimeoutError";
}

import { RpcError } from "../shared/rpc/errors.ts";
import type { Stage } from "./model.ts";

export type ProgressEvent =
  | { readonly kind: "stage"; readonly timeMs: number; readonly stage: Stage; readonly note: string }
  | { readonly kind: "output"; readonly timeMs: number; readonly stderr: boolean; readonly text: string };

/** Output that a late watcher still gets to see, bytes of text. */
const KEEP_OUTPUT = 64 << 10;

/** One call while this process works on it: what it has done so far, and the means to end it. */
export class LiveCall {
  readonly callId: string;
  readonly #now: () => number;
  readonly #events: ProgressEvent[] = [];
  readonly #listeners = new Set<(event: ProgressEvent) => void>();
  readonly #cancel = new AbortController();
  #outputKept = 0;

  constructor(callId: string, now: () => number) {
    this.callId = callId;
    this.#now = now;
  }

  /** Aborts when somebody asks for the call's end. */
  get cancelled(): AbortSignal {
    return this.#cancel.signal;
  }

  cancel(reason: string): void {
    this.#cancel.abort(new RpcError({ code: "CANCELLED", reason: "CANCELLED", message: reason }));
  }

  enter(stage: Stage, note = ""): void {
    this.#emit({ kind: "stage", timeMs: this.#now(), stage, note });
  }

  output(stderr: boolean, text: string): void {
    const event: ProgressEvent = { kind: "output", timeMs: this.#now(), stderr, text };
    if (this.#outputKept + text.length <= KEEP_OUTPUT) {
      this.#outputKept += text.length;
      this.#emit(event);
    } else for (const listener of this.#listeners) listener(event);
  }

  /** Hands over what has happened, then what happens. Returns what stops it. */
  listen(listener: (event: ProgressEvent) => void): () => void {
    for (const event of this.#events) listener(event);
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit(event: ProgressEvent): void {
    this.#events.push(event);
    for (const listener of this.#listeners) listener(event);
  }
}

/** Who waits for a call to end or to change, wherever it runs. */
export class Waiters {
  readonly #waiting = new Map<string, Set<() => void>>();

  notify(callId: string): void {
    for (const wake of this.#waiting.get(callId) ?? []) wake();
  }

  /** Resolves at the next notice after this call; ask for the state only then. Rejects when the signal aborts. */
  next(callId: string, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const wakers = this.#waiting.get(callId) ?? new Set();
      this.#waiting.set(callId, wakers);
      const done = (): void => {
        wakers.delete(wake);
        if (wakers.size === 0) this.#waiting.delete(callId);
        signal.removeEventListener("abort", onAbort);
      };
      const wake = (): void => {
        done();
        resolve();
      };
      const onAbort = (): void => {
        done();
        reject(signal.reason);
      };
      wakers.add(wake);
      signal.addEventListener("abort", onAbort);
      if (signal.aborted) onAbort();
    });
  }
}

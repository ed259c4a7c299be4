import type { Log } from "../shared/log.ts";

/**
 * Ends approvals when their time is over: one timer for all streams, set to the earliest expiry it knows.
 *
 * Another replica may have taken requests that this one never saw, and may be gone since: the streams are looked
 * through again every RESCAN_MS, so that any replica alive ends what is due. Several that do it at once do no harm.
 */
export type ExpiryOptions = {
  readonly streams: () => AsyncIterable<string>;
  /** Ends what is due in the stream; answers when the next one is. */
  readonly expire: (stream: string) => Promise<number | undefined>;
  readonly now: () => number;
  readonly log: Log;
};

const RESCAN_MS = 30_000;
/** After a fault, e.g. a journal that does not answer. */
const RETRY_MS = 1_000;

export class Expiry implements AsyncDisposable {
  readonly #options: ExpiryOptions;
  readonly #earliest = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #rescanAtMs = 0;
  #running: Promise<void> | undefined;
  #stopped = false;

  constructor(options: ExpiryOptions) {
    this.#options = options;
  }

  /** @throws RpcError UNAVAILABLE when the journal does not answer. */
  async start(): Promise<void> {
    await this.#scan();
    this.#arm(this.#delayMs());
  }

  /** An approval of this stream expires then. */
  note(stream: string, expiresAtMs: number): void {
    this.#keepEarlier(stream, expiresAtMs);
    if (this.#running === undefined) this.#arm(this.#delayMs());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #delayMs(): number {
    let dueAtMs = this.#rescanAtMs;
    for (const atMs of this.#earliest.values()) if (atMs < dueAtMs) dueAtMs = atMs;
    return Math.min(RESCAN_MS, Math.max(1, dueAtMs - this.#options.now()));
  }

  #arm(delayMs: number): void {
    clearTimeout(this.#timer);
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#running = this.#run().then((nextDelayMs) => {
        this.#running = undefined;
        this.#arm(nextDelayMs ?? this.#delayMs());
      });
    }, delayMs);
    this.#timer.unref();
  }

  async #run(): Promise<number | undefined> {
    try {
      if (this.#options.now() >= this.#rescanAtMs) await this.#scan();
      else await this.#expireDue();
      return undefined;
    } catch (error) {
      this.#options.log.warn({ err: error }, "approvals.expiry_failed");
      return RETRY_MS;
    }
  }

  async #scan(): Promise<void> {
    const streams: string[] = [];
    for await (const stream of this.#options.streams()) streams.push(stream);
    await this.#expireAll(streams);
    this.#rescanAtMs = this.#options.now() + RESCAN_MS;
  }

  async #expireDue(): Promise<void> {
    const nowMs = this.#options.now();
    await this.#expireAll([...this.#earliest].filter(([, atMs]) => atMs <= nowMs).map(([stream]) => stream));
  }

  /** A stream that cannot be read keeps no other waiting. */
  async #expireAll(streams: readonly string[]): Promise<void> {
    const failures: unknown[] = [];
    for (const stream of streams) {
      if (this.#stopped) return;
      await this.#expire(stream).catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  async #expire(stream: string): Promise<void> {
    const knownAtMs = this.#earliest.get(stream);
    // Taken out first: what is noted meanwhile is newer than the answer, so the earlier of the two is kept.
    this.#earliest.delete(stream);
    try {
      const nextAtMs = await this.#options.expire(stream);
      if (nextAtMs !== undefined) this.#keepEarlier(stream, nextAtMs);
    } catch (error) {
      if (knownAtMs !== undefined) this.#keepEarlier(stream, knownAtMs);
      throw error;
    }
  }

  #keepEarlier(stream: string, atMs: number): void {
    this.#earliest.set(stream, Math.min(atMs, this.#earliest.get(stream) ?? atMs));
  }
}

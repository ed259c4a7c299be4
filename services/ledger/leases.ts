/**
 * Wakes when the earliest lease of any tenant is over, so that what nobody settles is freed without traffic. One timer,
 * and only a hint: every command ends the leases that are over by itself.
 */
export type LeaseTimerOptions = {
  /** Ends what is over, and says when the tenant's next lease is. */
  readonly expire: (tenant: string) => Promise<number | undefined>;
  readonly onError: (tenant: string, error: unknown) => void;
  readonly now: () => number;
};

/** Leases that end close together end in one go. */
const MIN_WAIT_MS = 50;
/** A clock that is set forward, or a machine that slept, is noticed this soon. */
const MAX_WAIT_MS = 60_000;
const RETRY_MS = 5_000;

export class LeaseTimer implements AsyncDisposable {
  readonly #options: LeaseTimerOptions;
  /** By tenant; may be earlier than the truth. */
  readonly #earliest = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #wakesAtMs = Number.POSITIVE_INFINITY;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(options: LeaseTimerOptions) {
    this.#options = options;
  }

  /** Call for every lease that begins or grows. */
  note(tenant: string, expiresAtMs: number): void {
    if (expiresAtMs >= (this.#earliest.get(tenant) ?? Number.POSITIVE_INFINITY)) return;
    this.#earliest.set(tenant, expiresAtMs);
    if (expiresAtMs < this.#wakesAtMs) this.#arm();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #arm(): void {
    clearTimeout(this.#timer);
    // A run arms again when it is done: two of them would ask the same.
    if (this.#closed || this.#running !== undefined) return;
    this.#wakesAtMs = Number.POSITIVE_INFINITY;
    for (const expiresAtMs of this.#earliest.values()) this.#wakesAtMs = Math.min(this.#wakesAtMs, expiresAtMs);
    if (this.#earliest.size === 0) return;
    const wait = Math.min(Math.max(this.#wakesAtMs - this.#options.now(), MIN_WAIT_MS), MAX_WAIT_MS);
    this.#timer = setTimeout(() => {
      this.#running = this.#run().finally(() => {
        this.#running = undefined;
        this.#arm();
      });
    }, wait).unref();
  }

  async #run(): Promise<void> {
    const nowMs = this.#options.now();
    const due = [...this.#earliest].filter(([, expiresAtMs]) => expiresAtMs <= nowMs).map(([tenant]) => tenant);
    for (const tenant of due) {
      if (this.#closed) return;
      this.#earliest.delete(tenant);
      try {
        const next = await this.#options.expire(tenant);
        if (next !== undefined) this.note(tenant, next);
      } catch (error) {
        this.#options.onError(tenant, error);
        this.note(tenant, nowMs + RETRY_MS);
      }
    }
  }
}

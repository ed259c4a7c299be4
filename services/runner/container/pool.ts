import type { Log } from "../../shared/log.ts";

/** What a pool keeps: started, idle and never used. */
export type Pooled = AsyncDisposable & { readonly alive: boolean; readonly gone: Promise<unknown> };

export type PoolOptions<K, S extends Pooled> = {
  readonly make: (kind: K) => Promise<S>;
  /** What is the same for two kinds is the same sandbox. */
  readonly keyOf: (kind: K) => string;
  /** Over all kinds, idle and in the making. */
  readonly maxIdle: number;
  readonly log: Log;
};

export type PoolState = {
  readonly idle: number;
  readonly making: number;
  readonly claimed: number;
  readonly missed: number;
};

/** A kind that nobody asked for so long is not kept ready. */
const FORGET_MS = 300_000;
const TICK_MS = 15_000;
/** After a failure to make one. */
const REST_MS = 2_000;

type Shelf<K, S> = {
  readonly kind: K;
  readonly idle: S[];
  making: number;
  /** Used at this moment, and at most in the last ticks. */
  inUse: number;
  peak: number;
  usedAtMs: number;
};

/**
 * Sandboxes ready to be claimed, per kind: as many as were in use at once lately, within the bound. One is made at a
 * time, and none while a call waits for its own: refilling never starves what runs.
 */
export class WarmPool<K, S extends Pooled> implements AsyncDisposable {
  readonly #options: PoolOptions<K, S>;
  readonly #shelves = new Map<string, Shelf<K, S>>();
  readonly #timer: NodeJS.Timeout;
  #refilling: Promise<void> | undefined;
  /** Calls that wait for a sandbox of their own. */
  #waiting = 0;
  #restUntilMs = 0;
  #stopped = false;
  #claimed = 0;
  #missed = 0;

  constructor(options: PoolOptions<K, S>) {
    this.#options = options;
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  state(): PoolState {
    const shelves = [...this.#shelves.values()];
    const sum = (of: (shelf: Shelf<K, S>) => number): number => shelves.reduce((total, shelf) => total + of(shelf), 0);
    return {
      idle: sum(({ idle }) => idle.length),
      making: sum(({ making }) => making),
      claimed: this.#claimed,
      missed: this.#missed,
    };
  }

  /** One that nobody has used; made now when none is ready. Give it back with `done`. */
  async claim(kind: K): Promise<S> {
    const shelf = this.#shelf(kind);
    shelf.inUse++;
    shelf.peak = Math.max(shelf.peak, shelf.inUse);
    shelf.usedAtMs = performance.now();
    const ready = takeAlive(shelf.idle);
    if (ready !== undefined) {
      this.#claimed++;
      this.#refill();
      return ready;
    }
    this.#missed++;
    this.#waiting++;
    try {
      return await this.#options.make(kind);
    } catch (error) {
      this.done(kind);
      throw error;
    } finally {
      this.#waiting--;
      this.#refill();
    }
  }

  /** The claimed one is used no more; it is destroyed by who claimed it. */
  done(kind: K): void {
    const shelf = this.#shelves.get(this.#options.keyOf(kind));
    if (shelf !== undefined) shelf.inUse--;
  }

  /** Once as many are ready as are wanted. */
  async settled(): Promise<void> {
    while (this.#refilling !== undefined) await this.#refilling;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.settled();
    await this.drop();
  }

  /** Destroys what is idle. */
  async drop(): Promise<void> {
    const idle = [...this.#shelves.values()].flatMap((shelf) => shelf.idle.splice(0));
    await Promise.all(idle.map((sandbox) => sandbox[Symbol.asyncDispose]()));
  }

  #shelf(kind: K): Shelf<K, S> {
    const key = this.#options.keyOf(kind);
    const known = this.#shelves.get(key);
    if (known !== undefined) return known;
    const shelf = { kind, idle: [], making: 0, inUse: 0, peak: 0, usedAtMs: performance.now() };
    this.#shelves.set(key, shelf);
    return shelf;
  }

  #tick(): void {
    for (const [key, shelf] of this.#shelves) {
      shelf.peak = Math.max(shelf.inUse, shelf.peak >> 1);
      if (performance.now() - shelf.usedAtMs < FORGET_MS || shelf.inUse + shelf.making > 0) continue;
      this.#shelves.delete(key);
      for (const sandbox of shelf.idle) void sandbox[Symbol.asyncDispose]();
    }
    this.#refill();
  }

  #refill(): void {
    if (this.#refilling !== undefined || this.#stopped) return;
    const shelf = this.#wanting();
    if (shelf === undefined) return;
    this.#refilling = this.#add(shelf).finally(() => {
      this.#refilling = undefined;
      this.#refill();
    });
  }

  /** The kind that lacks most; the one used last among equals. */
  #wanting(): Shelf<K, S> | undefined {
    const { idle, making } = this.state();
    if (this.#waiting > 0 || performance.now() < this.#restUntilMs) return undefined;
    const lacking = [...this.#shelves.values()].filter((shelf) => lack(shelf) > 0);
    lacking.sort((a, b) => lack(b) - lack(a) || b.usedAtMs - a.usedAtMs);
    if (idle + making < this.#options.maxIdle) return lacking[0];
    // Full: room is made only of a kind that has more than it needs now.
    const rich = [...this.#shelves.values()].find((shelf) => shelf.idle.length > Math.max(1, shelf.peak));
    if (rich !== undefined) void rich.idle.shift()?.[Symbol.asyncDispose]();
    return undefined;
  }

  async #add(shelf: Shelf<K, S>): Promise<void> {
    shelf.making++;
    try {
      const sandbox = await this.#options.make(shelf.kind);
      shelf.idle.push(sandbox);
      void sandbox.gone.then(() => {
        const at = shelf.idle.indexOf(sandbox);
        if (at < 0) return; // claimed
        shelf.idle.splice(at, 1);
        void sandbox[Symbol.asyncDispose]();
        this.#refill();
      });
    } catch (error) {
      this.#restUntilMs = performance.now() + REST_MS;
      this.#options.log.warn({ err: error }, "containers.pool_refill_failed");
    } finally {
      shelf.making--;
    }
  }
}

function lack<K, S>({ idle, making, peak }: Shelf<K, S>): number {
  return Math.max(1, peak) - idle.length - making;
}

function takeAlive<S extends Pooled>(idle: S[]): S | undefined {
  for (;;) {
    const sandbox = idle.shift();
    if (sandbox === undefined || sandbox.alive) return sandbox;
    void sandbox[Symbol.asyncDispose]();
  }
}

import type { Log } from "../../shared/log.ts";
import type { Confinement } from "./confine.ts";
import { WorkerProcess } from "./worker-process.ts";

export type PoolOptions = {
  readonly confinement: Confinement;
  /** Worker processes at most. */
  readonly workers: number;
  /** Kept ready for whoever comes. */
  readonly warm: number;
  readonly log: Log;
};

/** A process is replaced after so many programs, before what they left behind adds up. */
const MAX_RUNS = 200;
/** Or once it holds more than this between two of them. */
const MAX_RESIDENT_BYTES = 96 << 20;
/** A worker is ready within 0.1 s on an idle machine. */
const START_MS = 20_000;
type Waiter = {
  readonly tenant: string;
  readonly sinceMs: number;
  readonly leaves: number;
  readonly take: (worker: WorkerProcess) => void;
  readonly refuse: (why: unknown) => void;
};

/**
 * Worker processes, each for one tenant and for one program at a time. First come, first served, with two exceptions.
 * Programs that may wait for others never take the last places, so that what they wait for finds one. And a worker that
 * is free goes to its own tenant, past those of others who have only begun to wait: ending it to start another costs
 * a hundred times what a program does.
 */
export class WorkerPool implements AsyncDisposable {
  readonly #options: PoolOptions;
  readonly #all = new Set<WorkerProcess>();
  readonly #idle = new Set<WorkerProcess>();
  /** Held by programs that may wait for others. */
  readonly #patient = new Set<WorkerProcess>();
  #waiters: Waiter[] = [];
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.#refill();
  }

  /**
   * A worker that has run nothing but this tenant's programs. Rejects when the signal aborts or the pool closes first.
   * `leaves`: the places that programs which may wait for others must leave free of their kind; 0 for one that cannot
   * wait.
   */
  acquire(tenant: string, signal: AbortSignal, leaves = 0): Promise<WorkerProcess> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        this.#waiters = this.#waiters.filter((each) => each !== waiter);
        reject(signal.reason);
      };
      const settled = (): void => signal.removeEventListener("abort", giveUp);
      const waiter: Waiter = {
        tenant,
        sinceMs: performance.now(),
        leaves,
        take: (worker) => {
          settled();
          resolve(worker);
        },
        refuse: (why) => {
          settled();
          reject(why);
        },
      };
      if (this.#closed) return reject(new Error("the runner stops"));
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener("abort", giveUp, { once: true });
      this.#waiters.push(waiter);
      this.#serve();
    });
  }

  /** Gives a worker back: to be used again where it is fit for it. */
  release(worker: WorkerProcess): void {
    this.#patient.delete(worker);
    const worn = worker.runs >= MAX_RUNS || (worker.residentBytes() ?? 0) > MAX_RESIDENT_BYTES;
    if (worn) worker.kill("it has run its share of programs");
    else if (worker.isReady && !this.#closed) this.#idle.add(worker);
    else worker.kill("it was not ready for another program");
    this.#serve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    for (const waiter of this.#waiters.splice(0)) waiter.refuse(new Error("the runner stops"));
    const all = [...this.#all];
    for (const worker of all) worker.kill("the runner stops");
    await Promise.all(all.map((worker) => worker.ended));
  }

  #serve(): void {
    while (!this.#closed) {
      const waiting = this.#waiters.filter((each) => this.#mayBegin(each));
      const [first] = waiting;
      if (first === undefined) break;
      const isPatient = performance.now() - first.sinceMs < PATIENCE_MS;
      const waiter =
        this.#find(first.tenant) === undefined && isPatient
          ? (waiting.find(({ tenant }) => this.#own(tenant) !== undefined) ?? first)
          : first;
      const worker = this.#find(waiter.tenant);
      if (worker === undefined) {
        this.#makeRoom();
        break;
      }
      this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
      this.#idle.delete(worker);
      if (waiter.leaves > 0) this.#patient.add(worker);
      worker.tenant = waiter.tenant;
      waiter.take(worker);
    }
    this.#refill();
  }

  #mayBegin({ leaves }: Waiter): boolean {
    return leaves === 0 || this.#patient.size < this.#options.workers - leaves;
  }

  #find(tenant: string): WorkerProcess | undefined {
    return this.#own(tenant) ?? this.#own(undefined);
  }

  /** One at rest that has run this tenant's programs; nobody's for undefined. */
  #own(tenant: string | undefined): WorkerProcess | undefined {
    for (const worker of this.#idle) {
      if (worker.isReady && worker.tenant === tenant) return worker; // one that is not has died: its end is on its way
    }
    return undefined;
  }

  /** Where all places are taken, others' workers that rest make room: for each who waits one, and no more. */
  #makeRoom(): void {
    if (this.#all.size < this.#options.workers) return;
    const waiting = this.#waiters.filter((waiter) => this.#mayBegin(waiter)).length;
    let coming = [...this.#all].filter((worker) => worker.tenant === undefined || !worker.isAlive).length;
    for (const worker of this.#idle) {
      if (coming >= waiting) return;
      if (!worker.isAlive) continue;
      coming++;
      this.#idle.delete(worker);
      worker.kill("another tenant needs its place");
    }
  }

  /** As many fresh ones as wait, and the warm ones beyond them. */
  #refill(): void {
    if (this.#closed) return;
    const fresh = [...this.#all].filter((worker) => worker.tenant === undefined && worker.isAlive).length;
    const waiting = this.#waiters.filter((waiter) => this.#mayBegin(waiter)).length;
    const wanted = waiting + this.#options.warm - fresh;
    for (let i = 0; i < wanted && this.#all.size < this.#options.workers; i++) this.#spawn();
  }

  #spawn(): void {
    const worker = new WorkerProcess(this.#options.confinement);
    this.#all.add(worker);
    const deadline = setTimeout(() => worker.kill("it did not become ready"), START_MS);
    worker.ready().then(
      () => {
        clearTimeout(deadline);
        this.#idle.add(worker);
        this.#serve();
      },
      () => clearTimeout(deadline), // its end, below, says why
    );
    void worker.ended.then(({ why }) => {
      this.#all.delete(worker);
      this.#idle.delete(worker);
      this.#patient.delete(worker);
      if (worker.runs > 0 || this.#closed) this.#serve();
      else {
        this.#options.log.error({ why }, "isolate.worker.failed");
        setTimeout(() => this.#serve(), RESPAWN_MS).unref();
      }
    });
  }
}

/** How long those who wait let others pass who need no new process. */
const PATIENCE_MS = 150;
/** One that cannot start is not started again in a tight loop. */
const RESPAWN_MS = 500;

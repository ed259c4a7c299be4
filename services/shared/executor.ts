import type { Decided, Decider } from "./decider.ts";
import { Conflict, GENESIS, type Head, type Journal, JournalUnavailable, type NewRecord } from "./journal/journal.ts";
import { MAX_TIMER_MS } from "./rpc/call-scope.ts";
import { RpcError } from "./rpc/errors.ts";

/**
 * Runs a decider over the journal: loads and caches the state of each stream, gathers what arrives while an append is
 * in flight into the next one, and decides again when another writer was first.
 *
 * E1. A promise resolves only after the append it rests on was acknowledged, or after the state it looked at was found
 *     to be the stream's present one.
 * E2. Commands of one stream are decided in the order in which they came.
 * E3. An append whose fate is unknown is settled by reading the stream and deciding again. So every command must be
 *     idempotent: decided again after it has landed, it is accepted without events.
 */
export class Executor<State, Command, Event, Refusal> implements AsyncDisposable {
  readonly #options: ExecutorOptions<State, Command, Event, Refusal>;
  /** In the order of last use. */
  readonly #lanes = new Map<string, Lane<State, Event>>();
  #closed = false;

  constructor(options: ExecutorOptions<State, Command, Event, Refusal>) {
    this.#options = options;
  }

  /** @throws RpcError UNAVAILABLE (JOURNAL_UNAVAILABLE), DEADLINE_EXCEEDED or CANCELLED: the command may have landed. */
  execute(stream: string, command: Command, options: WaitOptions = {}): Promise<Decided<Event, Refusal>> {
    const { decider } = this.#options;
    return this.#submit(stream, options, (state, settle) => {
      const decided = decider.decide(state, command);
      settle(decided);
      return decided.kind === "accepted" ? decided.events : [];
    });
  }

  /** What the stream's state is now, on every replica. `look` must not keep or change what it is shown. */
  read<T>(stream: string, look: (state: State) => T, options: WaitOptions = {}): Promise<T> {
    return this.#submit(stream, options, (state, settle) => {
      settle(look(state));
      return [];
    });
  }

  /**
   * What the state looks like from here, without a round trip: perhaps older than on another replica, perhaps ahead of
   * what is durable. Only for what a later command decides again.
   */
  async peek<T>(stream: string, look: (state: State) => T, options: WaitOptions = {}): Promise<T> {
    const state = this.#lanes.get(stream)?.state;
    return state === undefined ? await this.read(stream, look, options) : look(state);
  }

  /** Lets what is under way end; what comes later is refused. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#lanes.values()].map((lane) => lane.idle()));
  }

  #submit<T>(
    stream: string,
    options: WaitOptions,
    attempt: (state: State, settle: (value: T) => void) => readonly Event[],
  ): Promise<T> {
    if (this.#closed) return Promise.reject(unavailable("The service is stopping; send the request again.", undefined));
    return new Promise<T>((resolve, reject) => {
      let found: { value: T } | undefined;
      const task: Task<State, Event> = {
        attempt: (state) => attempt(state, (value) => (found = { value })),
        done: () => {
          release();
          if (found !== undefined) resolve(found.value);
        },
        fail: (error) => {
          release();
          reject(error);
        },
        over: false,
      };
      const release = giveUpWith(options, task);
      this.#lane(stream).push(task);
    });
  }

  #lane(stream: string): Lane<State, Event> {
    const lane = this.#lanes.get(stream) ?? new Lane(stream, this.#options);
    this.#lanes.delete(stream);
    this.#lanes.set(stream, lane);
    if (this.#lanes.size > (this.#options.maxStreams ?? 10_000)) this.#evict();
    return lane;
  }

  #evict(): void {
    for (const [stream, lane] of this.#lanes) {
      if (lane.busy) continue;
      this.#lanes.delete(stream);
      return;
    }
  }
}

export type ExecutorOptions<State, Command, Event, Refusal> = {
  readonly journal: Journal;
  readonly decider: Decider<State, Command, Event, Refusal>;
  readonly now: () => number;
  /** Streams whose state is kept in memory. */
  readonly maxStreams?: number;
  /** Events of one append at most; one command's events are never split. */
  readonly maxBatch?: number;
  /** A snapshot is written after this many events. */
  readonly snapshotEvery?: number;
};

export type WaitOptions = { readonly signal?: AbortSignal; readonly deadlineMs?: number | undefined };

type Task<State, Event> = {
  /** Looks at the state and says what to append. Called again when that state was not the present one. */
  readonly attempt: (state: State) => readonly Event[];
  readonly done: () => void;
  readonly fail: (error: unknown) => void;
  /** Its caller has gone. */
  over: boolean;
};

/** How long an append is tried while the journal does not answer, where the caller set no deadline. */
const PATIENCE_MS = 5_000;
const RETRY_MS = 50;
/** In a row, at one and the same head. */
const MAX_CONFLICTS = 5;
/** Of one append: what NATS carries by default is 1 MiB. A command whose events are larger goes alone. */
const MAX_BATCH_BYTES = 256 << 10;

/** The work on one stream, one batch at a time. */
class Lane<State, Event> {
  readonly #stream: string;
  readonly #options: ExecutorOptions<State, never, Event, unknown>;
  readonly #maxBatch: number;
  readonly #snapshotEvery: number;
  #waiting: Task<State, Event>[] = [];
  #running: Promise<void> | undefined;
  #loaded: { state: State; head: Head } | undefined;
  #sinceSnapshot = 0;
  /** How often an append after this record was refused. */
  #conflicts = { seq: -1, times: 0 };

  constructor(stream: string, options: ExecutorOptions<State, never, Event, unknown>) {
    this.#stream = stream;
    this.#options = options;
    this.#maxBatch = options.maxBatch ?? 256;
    this.#snapshotEvery = options.snapshotEvery ?? 20_000;
  }

  get state(): State | undefined {
    return this.#loaded?.state;
  }

  get busy(): boolean {
    return this.#running !== undefined;
  }

  async idle(): Promise<void> {
    await this.#running;
  }

  push(task: Task<State, Event>): void {
    this.#waiting.push(task);
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    await Promise.resolve(); // what is sent in one turn goes in one append
    const patience = { untilMs: performance.now() + PATIENCE_MS };
    while (this.#waiting.length > 0) {
      try {
        await this.#runBatch();
        patience.untilMs = performance.now() + PATIENCE_MS;
      } catch (thrown) {
        const error = thrown instanceof Conflict ? this.#contradiction(thrown) : thrown;
        this.#loaded = undefined; // it has seen events that may not have landed
        if (error === undefined) continue;
        if (error instanceof JournalUnavailable && performance.now() < patience.untilMs) {
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
          continue;
        }
        const failure = error instanceof JournalUnavailable ? unavailable(UNAVAILABLE_TEXT, error) : error;
        for (const task of this.#waiting.splice(0)) task.fail(failure);
      }
    }
    this.#running = undefined; // in the same turn as the look at what is waiting: a task pushed later starts anew
  }

  /** Another was first, and the tail will show what it wrote. A journal whose tail never does is at odds with itself. */
  #contradiction(conflict: Conflict): Error | undefined {
    const seq = this.#loaded?.head.seq ?? 0;
    this.#conflicts = seq === this.#conflicts.seq ? { seq, times: this.#conflicts.times + 1 } : { seq, times: 1 };
    if (this.#conflicts.times < MAX_CONFLICTS) return undefined;
    const what = `journal: ${this.#stream} does not end at #${seq}, as its records say; run interlock audit verify`;
    return new Error(what, { cause: conflict });
  }

  /** Tasks leave the queue only once they are answered: an error leaves them there, to be tried again. */
  async #runBatch(): Promise<void> {
    this.#waiting = this.#waiting.filter((task) => !task.over);
    if (this.#waiting.length === 0) return;
    this.#loaded ??= await this.#load();
    const loaded = this.#loaded;
    const { decider, journal, now } = this.#options;
    const texts: string[] = [];
    let taken = 0;
    let bytes = 0;
    while (taken < this.#waiting.length && texts.length < this.#maxBatch) {
      const task = this.#waiting[taken];
      if (task === undefined) break;
      const events = this.#attempt(task, loaded.state);
      if (events === undefined) {
        this.#waiting.splice(taken, 1);
        continue;
      }
      const before = texts.length;
      for (const event of events) {
        const text = JSON.stringify(decider.eventToJson(event));
        bytes += text.length;
        texts.push(text);
      }
      if (before > 0 && bytes > MAX_BATCH_BYTES) {
        texts.length = before; // decided again in the next one
        break;
      }
      for (const event of events) loaded.state = decider.evolve(loaded.state, event);
      taken++;
    }
    if (taken === 0) return;
    if (texts.length > 0) {
      const timeMs = now();
      const bodies = decider.packed === true ? [`[${texts.join(",")}]`] : texts;
      const records = bodies.map((body): NewRecord => ({ timeMs, body: Buffer.from(body) }));
      loaded.head = await journal.append(this.#stream, loaded.head, records);
      this.#sinceSnapshot += texts.length;
      this.#writeSnapshot(loaded);
    } else if (await this.#catchUp(loaded)) return; // decided on an old state: again
    for (const task of this.#waiting.splice(0, taken)) task.done();
  }

  /** A command that cannot be decided fails alone. */
  #attempt(task: Task<State, Event>, state: State): readonly Event[] | undefined {
    try {
      return task.attempt(state);
    } catch (error) {
      task.fail(error);
      return undefined;
    }
  }

  async #load(): Promise<{ state: State; head: Head }> {
    const { decider, journal } = this.#options;
    const snapshot = await journal.readSnapshot(this.#stream);
    if (snapshot !== undefined) {
      const loaded = {
        state: decider.stateFromJson(JSON.parse(Buffer.from(snapshot.state).toString("utf8"))),
        head: { seq: snapshot.seq, hash: snapshot.hash } as Head,
      };
      this.#sinceSnapshot = 0;
      await this.#catchUp(loaded);
      return loaded;
    }
    const loaded = { state: decider.initial(), head: GENESIS };
    await this.#catchUp(loaded);
    return loaded;
  }

  /** Takes in what others have appended. @throws Error when the records do not follow from each other. */
  async #catchUp(loaded: { state: State; head: Head }): Promise<boolean> {
    const { decider, journal } = this.#options;
    let moved = false;
    for await (const { seq, prevHash, hash, body } of journal.read(this.#stream, loaded.head.seq)) {
      if (seq !== loaded.head.seq + 1 || Buffer.compare(prevHash, loaded.head.hash) !== 0) {
        throw new Error(
          `journal: ${this.#stream} #${seq} does not follow #${loaded.head.seq}; run interlock audit verify`,
        );
      }
      const json: unknown = JSON.parse(Buffer.from(body).toString("utf8"));
      const events = decider.packed === true && Array.isArray(json) ? (json as readonly unknown[]) : [json];
      for (const event of events) loaded.state = decider.evolve(loaded.state, decider.eventFromJson(event));
      this.#sinceSnapshot += events.length;
      loaded.head = { seq, hash };
      moved = true;
    }
    return moved;
  }

  /** A snapshot only saves time: one that cannot be written is tried again with the next. */
  #writeSnapshot({ state, head }: { state: State; head: Head }): void {
    if (this.#sinceSnapshot < this.#snapshotEvery) return;
    this.#sinceSnapshot = 0;
    const { decider, journal } = this.#options;
    const snapshot = { seq: head.seq, hash: head.hash, state: encode(decider.stateToJson(state)) };
    journal.writeSnapshot(this.#stream, snapshot).catch(() => {});
  }
}

const UNAVAILABLE_TEXT =
  "The journal does not answer, so nothing can be recorded and nothing runs; send it again shortly.";

function unavailable(message: string, cause: unknown): RpcError {
  return new RpcError({ code: "UNAVAILABLE", reason: "JOURNAL_UNAVAILABLE", message, retryAfterMs: 500, cause });
}

function encode(json: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(json));
}

/** Fails the task once its caller is gone or its deadline has passed. Returns what stops watching for that. */
function giveUpWith(
  options: WaitOptions,
  task: { over: boolean; readonly fail: (error: unknown) => void },
): () => void {
  const { signal, deadlineMs } = options;
  if (signal === undefined && deadlineMs === undefined) return () => {};
  const giveUp = (error: RpcError): void => {
    task.over = true;
    task.fail(error);
  };
  const onAbort = (): void => giveUp(RpcError.from(signal?.reason));
  if (signal?.aborted) queueMicrotask(onAbort);
  else signal?.addEventListener("abort", onAbort, { once: true });
  const timer =
    deadlineMs === undefined || deadlineMs - Date.now() > MAX_TIMER_MS
      ? undefined
      : setTimeout(() => giveUp(deadlinePassed()), deadlineMs - Date.now());
  return () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  };
}

function deadlinePassed(): RpcError {
  return new RpcError({
    code: "DEADLINE_EXCEEDED",
    reason: "JOURNAL_UNAVAILABLE",
    message: "The journal did not answer before the deadline; what was asked may have landed. Ask for it by its id.",
  });
}

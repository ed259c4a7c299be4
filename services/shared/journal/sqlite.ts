import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { chainRecords, checkAppend, hashRecord, headOf, sameHead } from "./chain.ts";
import {
  Conflict,
  type Cursor,
  GENESIS,
  type Head,
  type Journal,
  JournalUnavailable,
  type NewRecord,
  type Recorded,
  type Snapshot,
} from "./journal.ts";
import { openSqliteFile, type SqliteFileOptions } from "./sqlite-file.ts";

/**
 * The journal in one SQLite file, written by one process and read by any number.
 *
 * Durable (J1) means: with synchronous `full`, fsynced to the write-ahead log before the append is acknowledged; with
 * `normal`, written to it, so that it outlives the process but perhaps not a power cut.
 * @throws Error naming the file when it cannot be opened, or when another process writes to it.
 */
export function openSqliteJournal(options: SqliteFileOptions): Journal {
  return new SqliteJournal(options);
}

/** Work for the next transaction. An Error that it returns answers it alone; one that it throws undoes all. */
type Job = {
  readonly work: () => (() => void) | Error;
  readonly fail: (error: Error) => void;
};

/** One who has read all there is and is handed what is committed. */
type Listener = {
  readonly prefix: string;
  ready: Recorded[];
  /** It was handed more than it took; it must read again from the file. */
  behind: boolean;
  wake: () => void;
};

type Row = {
  readonly position: number;
  readonly stream: string;
  readonly seq: number;
  readonly time_ms: number;
  readonly body: Uint8Array;
  readonly prev_hash: Uint8Array;
  readonly hash: Uint8Array;
};

/** Rows of one query: bounds how long the event loop stands still, and how much is in memory. */
const PAGE = 256;
/** Positions that one query of watch looks through for its prefix. */
const WINDOW = 4_096;
const MAX_READY = 4_096;
const MAX_HEADS = 20_000;
const POLL_MS = 100;
/** So many records in one transaction mean that more are on their way. */
const CROWD = 6;
const GATHER_MS = 3;
/** Above every character of a stream's name. */
const LAST = "\u{10ffff}";

// Cast: whoever tampers with a shell may leave text where bytes were, and is to be found out, not to crash the reader.
const RECORD = `position, stream, seq, time_ms, CAST(body AS BLOB) AS body,
  CAST(prev_hash AS BLOB) AS prev_hash, CAST(hash AS BLOB) AS hash`;

class SqliteJournal implements Journal {
  readonly #options: SqliteFileOptions;
  readonly #file: ReturnType<typeof openSqliteFile>;
  readonly #sql: ReturnType<typeof statements>;
  /** The last records of the streams last used. True while this process is the only writer. */
  readonly #heads = new Map<string, Head>();
  /** What the open transaction adds to them. */
  readonly #staged = new Map<string, Head>();
  readonly #listeners = new Set<Listener>();
  #added: Recorded[] = [];
  #position: number;
  #jobs: Job[] = [];
  #crowded = false;
  #flushedMs = 0;
  #closed = false;

  constructor(options: SqliteFileOptions) {
    this.#options = options;
    this.#file = openSqliteFile(options);
    this.#sql = statements(this.#file.db);
    this.#position = Number(this.#sql.lastGiven.get()?.["seq"] ?? 0);
  }

  append(stream: string, head: Head, records: readonly NewRecord[]): Promise<Head> {
    return this.#commit<Head>(() => {
      checkAppend(stream, records);
      return () => {
        const present = this.#head(stream);
        if (present instanceof Error) return present;
        if (!sameHead(present, head)) return new Conflict(`${stream} is at #${present.seq}, not at #${head.seq}`);
        const chained = chainRecords(stream, head, records);
        for (const { seq, timeMs, body, prevHash, hash } of chained) {
          const position = this.#position + this.#added.length + 1;
          this.#sql.insert.run(position, stream, seq, timeMs, body, prevHash, hash);
          this.#added.push({ stream, seq, position, timeMs, body, prevHash, hash });
        }
        const moved = headOf(head, chained);
        this.#staged.set(stream, moved);
        return moved;
      };
    });
  }

  async *read(stream: string, afterSeq: number, signal?: AbortSignal): AsyncGenerator<Recorded> {
    let seq = afterSeq;
    for (;;) {
      signal?.throwIfAborted(); // to end here would look like the stream's end
      const head = this.#heads.get(stream);
      if (head !== undefined && head.seq <= seq && !this.#closed) return;
      const rows = this.#query(() => this.#sql.readStream.all(stream, seq, PAGE));
      for (const row of rows) {
        signal?.throwIfAborted();
        const record = recordedOf(row as Row);
        seq = record.seq;
        yield record;
      }
      if (rows.length < PAGE) return;
      await turn(); // a long stream must not keep the event loop from everybody else
    }
  }

  async *watch(prefix: string, afterPosition: number, signal: AbortSignal): AsyncGenerator<Recorded> {
    let position = afterPosition;
    while (!signal.aborted) {
      const end = this.#query(() => this.#endPosition());
      if (position < end) {
        const upTo = Math.min(end, position + WINDOW);
        const rows = this.#query(() => this.#sql.readWindow.all(position, upTo, prefix, prefix + LAST, PAGE));
        for (const row of rows) {
          if (signal.aborted) return;
          position = (row as Row).position;
          yield recordedOf(row as Row);
        }
        if (rows.length < PAGE) position = upTo;
        await turn();
      } else if (this.#options.readOnly) {
        await sleep(POLL_MS, undefined, { signal }).catch(() => {});
      } else {
        for await (const record of this.#listen(prefix, signal)) {
          if (record.position <= position) continue;
          position = record.position;
          yield record;
        }
      }
    }
  }

  async *streams(prefix: string): AsyncGenerator<string> {
    // One seek per stream: SQLite's DISTINCT would walk over every record.
    let stream = this.#query(() => this.#sql.firstStream.get(prefix, prefix + LAST))?.["stream"];
    for (let count = 1; typeof stream === "string"; count++) {
      yield stream;
      if (count % PAGE === 0) await turn();
      const after = stream;
      stream = this.#query(() => this.#sql.nextStream.get(after, prefix + LAST))?.["stream"];
    }
  }

  async readSnapshot(stream: string): Promise<Snapshot | undefined> {
    return this.#query(() => this.#sql.readSnapshot.get(stream)) as Snapshot | undefined;
  }

  writeSnapshot(stream: string, { seq, hash, state }: Snapshot): Promise<void> {
    return this.#commit(() => () => void this.#sql.writeSnapshot.run(stream, seq, hash, state));
  }

  async readCursor(name: string): Promise<Cursor | undefined> {
    return this.#query(() => this.#sql.readCursor.get(name)) as Cursor | undefined;
  }

  writeCursor(name: string, { position, state }: Cursor): Promise<void> {
    return this.#commit(() => () => void this.#sql.writeCursor.run(name, position, state));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#flush();
    this.#closed = true;
    for (const listener of this.#listeners) listener.wake();
    this.#file[Symbol.dispose]();
  }

  /** Whatever is asked in one turn of the event loop is one transaction, and so one fsync. */
  #commit<T>(prepare: () => () => T | Error): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#closed) throw new JournalUnavailable("the journal is closed");
      if (this.#options.readOnly) throw new TypeError("the journal is open for reading only");
      const work = prepare();
      if (this.#jobs.length === 0) this.#schedule();
      this.#jobs.push({
        work: () => {
          const done = work();
          return done instanceof Error ? done : () => resolve(done);
        },
        fail: reject,
      });
    });
  }

  /** A lone append is written at once. Where many come, a moment's wait lets them share what costs most: the fsync. */
  #schedule(): void {
    const restMs = this.#crowded ? this.#flushedMs + GATHER_MS - performance.now() : 0;
    if (restMs > 0) setTimeout(() => this.#flush(), restMs);
    else setImmediate(() => this.#flush());
  }

  #flush(): void {
    if (this.#jobs.length === 0) return; // disposed in the meantime
    const jobs = this.#jobs;
    this.#jobs = [];
    const settle: (() => void)[] = [];
    try {
      this.#sql.begin.run();
      for (const { work, fail } of jobs) {
        const done = work();
        settle.push(done instanceof Error ? () => fail(done) : done);
      }
      this.#sql.commit.run();
      this.#landed();
    } catch (error) {
      this.#undo();
      const failure = unavailable(error);
      for (const { fail } of jobs) fail(failure);
      return;
    }
    this.#flushedMs = performance.now();
    for (const answer of settle) answer();
  }

  #landed(): void {
    for (const [stream, head] of this.#staged) {
      this.#heads.delete(stream);
      this.#heads.set(stream, head);
      const [oldest] = this.#heads.keys();
      if (this.#heads.size > MAX_HEADS && oldest !== undefined) this.#heads.delete(oldest);
    }
    this.#staged.clear();
    const added = this.#added;
    this.#crowded = added.length >= CROWD;
    this.#added = [];
    this.#position = added.at(-1)?.position ?? this.#position;
    if (added.length > 0) for (const listener of this.#listeners) hand(listener, added);
  }

  #undo(): void {
    this.#staged.clear();
    this.#added = [];
    this.#heads.clear(); // whatever went wrong, the file knows better
    try {
      if (this.#file.db.isTransaction) this.#sql.rollback.run();
    } catch {
      // SQLite has rolled back by itself; if it has not, the next BEGIN fails and says so.
    }
  }

  /** The stream's last record. It is built upon, so it is checked when it comes from the file. */
  #head(stream: string): Head | Error {
    const known = this.#staged.get(stream) ?? this.#heads.get(stream);
    if (known !== undefined) return known;
    const row = this.#sql.readHead.get(stream) as Row | undefined;
    if (row === undefined) return GENESIS;
    const { seq, hash, ...rest } = recordedOf(row);
    if (row.prev_hash.length !== hash.length || !sameHead({ seq, hash: hashRecord({ seq, ...rest }) }, { seq, hash })) {
      return new Error(`journal: ${stream} #${seq} was changed after it was written; run interlock audit verify`);
    }
    return { seq, hash };
  }

  #endPosition(): number {
    return this.#options.readOnly ? Number(this.#sql.endPosition.get()?.["position"] ?? 0) : this.#position;
  }

  /** What is committed from now on, until the signal aborts or the listener has fallen behind. */
  async *#listen(prefix: string, signal: AbortSignal): AsyncGenerator<Recorded> {
    const listener: Listener = { prefix, ready: [], behind: false, wake: () => {} };
    const wake = (): void => listener.wake();
    signal.addEventListener("abort", wake);
    this.#listeners.add(listener);
    try {
      while (!signal.aborted && !listener.behind && !this.#closed) {
        const records = listener.ready;
        listener.ready = [];
        for (const record of records) {
          if (signal.aborted) return;
          yield record;
        }
        if (listener.ready.length > 0 || listener.behind || signal.aborted || this.#closed) continue;
        await new Promise<void>((resolve) => {
          listener.wake = resolve;
        });
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener("abort", wake);
    }
  }

  #query<T>(ask: () => T): T {
    if (this.#closed) throw new JournalUnavailable("the journal is closed");
    try {
      return ask();
    } catch (error) {
      throw unavailable(error);
    }
  }
}

function hand(listener: Listener, added: readonly Recorded[]): void {
  if (listener.behind) return;
  for (const record of added) if (record.stream.startsWith(listener.prefix)) listener.ready.push(record);
  if (listener.ready.length === 0) return;
  if (listener.ready.length > MAX_READY) {
    listener.behind = true;
    listener.ready = [];
  }
  listener.wake();
}

function recordedOf({ time_ms: timeMs, prev_hash: prevHash, ...row }: Row): Recorded {
  return { ...row, timeMs, prevHash };
}

function unavailable(error: unknown): JournalUnavailable {
  const why = error instanceof Error ? error.message : String(error);
  return new JournalUnavailable(`the journal's file does not answer: ${why}`, { cause: error });
}

function statements(db: ReturnType<typeof openSqliteFile>["db"]) {
  return {
    begin: db.prepare("BEGIN IMMEDIATE"),
    commit: db.prepare("COMMIT"),
    rollback: db.prepare("ROLLBACK"),
    insert: db.prepare(
      "INSERT INTO records (position, stream, seq, time_ms, body, prev_hash, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    lastGiven: db.prepare("SELECT seq FROM sqlite_sequence WHERE name = 'records'"),
    endPosition: db.prepare("SELECT max(position) AS position FROM records"),
    readHead: db.prepare(`SELECT ${RECORD} FROM records WHERE stream = ? ORDER BY seq DESC LIMIT 1`),
    readStream: db.prepare(`SELECT ${RECORD} FROM records WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?`),
    // The plus signs keep SQLite from the index on stream, with which it would have to sort.
    readWindow: db.prepare(
      `SELECT ${RECORD} FROM records WHERE position > ? AND position <= ? AND +stream >= ? AND +stream < ?
       ORDER BY position LIMIT ?`,
    ),
    firstStream: db.prepare("SELECT stream FROM records WHERE stream >= ? AND stream < ? ORDER BY stream LIMIT 1"),
    nextStream: db.prepare("SELECT stream FROM records WHERE stream > ? AND stream < ? ORDER BY stream LIMIT 1"),
    readSnapshot: db.prepare("SELECT seq, hash, state FROM snapshots WHERE stream = ?"),
    writeSnapshot: db.prepare(
      `INSERT INTO snapshots (stream, seq, hash, state) VALUES (?, ?, ?, ?)
       ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, state = excluded.state`,
    ),
    readCursor: db.prepare("SELECT position, state FROM cursors WHERE name = ?"),
    writeCursor: db.prepare(
      `INSERT INTO cursors (name, position, state) VALUES (?, ?, ?)
       ON CONFLICT (name) DO UPDATE SET position = excluded.position, state = excluded.state`,
    ),
  };
}

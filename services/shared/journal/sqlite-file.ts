import { closeSync, existsSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** The journal's file: made, locked and checked before anything is read from it or written to it. */

export type SqliteFileOptions = {
  readonly path: string;
  /** `full`: an append is on disk before it is acknowledged. `normal`: a power cut may take the last ones. */
  readonly synchronous: "full" | "normal";
  readonly readOnly: boolean;
};

const APPLICATION_ID = 0x494c4b31; // "ILK1"
const SCHEMA_VERSION = 1;
const SQLITE_BUSY = 5;
/** Nobody else writes, so only a person's sqlite3 shell is ever waited for; the event loop stands still meanwhile. */
const BUSY_TIMEOUT_MS = 100;

// AUTOINCREMENT: a position is never given twice, not even after somebody deleted the last records.
const SCHEMA = `
  CREATE TABLE records (
    position  INTEGER PRIMARY KEY AUTOINCREMENT,
    stream    TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    time_ms   INTEGER NOT NULL,
    body      BLOB    NOT NULL,
    prev_hash BLOB    NOT NULL,
    hash      BLOB    NOT NULL,
    UNIQUE (stream, seq)
  );
  CREATE TABLE snapshots (
    stream TEXT PRIMARY KEY,
    seq    INTEGER NOT NULL,
    hash   BLOB    NOT NULL,
    state  BLOB    NOT NULL
  ) STRICT;
  CREATE TABLE cursors (
    name     TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    state    BLOB    NOT NULL
  ) STRICT;
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

/** @throws Error naming the file and what to do. */
export function openSqliteFile(options: SqliteFileOptions): { db: DatabaseSync } & Disposable {
  using stack = new DisposableStack();
  try {
    if (options.readOnly) {
      if (!existsSync(options.path)) throw new Error("there is no such file; start Interlock once to make it");
    } else {
      mkdirSync(dirname(options.path), { recursive: true, mode: 0o700 });
      stack.adopt(takeLock(`${options.path}.lock`), (held) => held.close());
      createPrivate(options.path);
    }
    const db = stack.adopt(
      new DatabaseSync(options.path, { readOnly: options.readOnly, timeout: BUSY_TIMEOUT_MS }),
      (opened) => opened.close(),
    );
    if (!options.readOnly) prepare(db, options.synchronous);
    check(db);
    const held = stack.move();
    return { db, [Symbol.dispose]: () => held.dispose() };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`cannot open the journal ${options.path}: ${why}`, { cause: error });
  }
}

/**
 * Two writers would each believe in their own heads. The lock is an open transaction on a file beside the journal: the
 * kernel drops it when its holder dies, however it dies, and readers of the journal itself are not hindered.
 */
function takeLock(path: string): DatabaseSync {
  createPrivate(path);
  const lock = new DatabaseSync(path);
  try {
    lock.exec("BEGIN EXCLUSIVE");
    return lock;
  } catch (error) {
    lock.close();
    if (sqliteCode(error) !== SQLITE_BUSY) throw error;
    throw new Error("another process writes to it; stop that one, or give this one a state directory of its own", {
      cause: error,
    });
  }
}

/**
 * SQLite would make the file as the umask allows. A file that exists must not be opened here: closing it again would
 * drop the locks that SQLite holds on it in this process.
 */
function createPrivate(path: string): void {
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
  }
}

function prepare(db: DatabaseSync, synchronous: "full" | "normal"): void {
  const fresh = pragma(db, "user_version") === 0 && pragma(db, "schema_version") === 0;
  db.exec("PRAGMA journal_mode = WAL");
  db.exec(`PRAGMA synchronous = ${synchronous === "full" ? "FULL" : "NORMAL"}`);
  db.exec("PRAGMA journal_size_limit = 67108864");
  if (fresh) db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT;`);
}

function check(db: DatabaseSync): void {
  if (pragma(db, "application_id") !== APPLICATION_ID) throw new Error("it is no journal of Interlock");
  const version = pragma(db, "user_version");
  if (version !== SCHEMA_VERSION) {
    throw new Error(
      `its format is ${version} and this Interlock reads ${SCHEMA_VERSION}; run the version that wrote it`,
    );
  }
}

function pragma(db: DatabaseSync, name: string): unknown {
  return db.prepare(`PRAGMA ${name}`).get()?.[name];
}

function sqliteCode(error: unknown): unknown {
  return error instanceof Error && "errcode" in error ? error.errcode : undefined;
}

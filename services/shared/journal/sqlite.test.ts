import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { newSigningKeyPem, signerFromPem } from "../signing.ts";
import { startCheckpoints } from "./checkpoint.ts";
import { Conflict, GENESIS, type Head, type Journal, JournalUnavailable } from "./journal.ts";
import { openSqliteJournal } from "./sqlite.ts";
import { verifyJournal } from "./verify.ts";

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "interlock-sqlite-"));
  path = join(directory, "state", "journal.db");
});

afterEach(() => rmSync(directory, { recursive: true }));

const open = (readOnly = false): Journal => openSqliteJournal({ path, synchronous: "full", readOnly });
const record = (body: string) => ({ timeMs: 1, body: Buffer.from(body) });
const bodies = async (journal: Journal, stream: string): Promise<string[]> =>
  (await Array.fromAsync(journal.read(stream, 0))).map(({ body }) => Buffer.from(body).toString());

/** A process that opens the journal, appends one record to ledger.child, says so and then only lives. */
async function holder(): Promise<ChildProcess & AsyncDisposable> {
  const script = `
    import { openSqliteJournal } from ${JSON.stringify(join(import.meta.dirname, "sqlite.ts"))};
    import { GENESIS } from ${JSON.stringify(join(import.meta.dirname, "journal.ts"))};
    const journal = openSqliteJournal({ path: ${JSON.stringify(path)}, synchronous: "full", readOnly: false });
    await journal.append("ledger.child", GENESIS, [{ timeMs: 1, body: Buffer.from("child") }]);
    console.log("ready");
    setInterval(() => journal, 1000); // a journal that nobody holds is collected, and its lock with it`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  await Promise.race([
    once(child.stdout, "data"),
    exited.then(() => {
      throw new Error("the child ended before it held the journal");
    }),
  ]);
  return Object.assign(child, {
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await exited;
    },
  });
}

describe("one writer", () => {
  it("refuses a second one in another process, naming the file, and lets it read", async () => {
    await using _child = await holder();
    expect(() => open()).toThrow(`cannot open the journal ${path}: another process writes to it`);
    await using reader = open(true);
    expect(await bodies(reader, "ledger.child")).toEqual(["child"]);
    await expect(reader.append("ledger.x", GENESIS, [record("x")])).rejects.toThrow("reading only");
  });

  it("opens after the holder was killed, with all that it had acknowledged", async () => {
    {
      await using _child = await holder();
    }
    expect(existsSync(`${path}.lock`)).toBe(true);
    await using journal = open();
    expect(await bodies(journal, "ledger.child")).toEqual(["child"]);
    await journal.append("ledger.mine", GENESIS, [record("mine")]);
  });

  it("refuses a second one in this process, keeps refusing, and frees the file when disposed", async () => {
    const journal = open();
    for (let i = 0; i < 3; i++) expect(() => open()).toThrow("another process writes to it");
    await journal[Symbol.asyncDispose]();
    await journal[Symbol.asyncDispose]();
    await using _again = open();
  });
});

describe("the file", () => {
  it("is for its owner only, as is its directory", async () => {
    await using journal = open();
    await journal.append("ledger.a", GENESIS, [record("a")]);
    for (const file of [path, `${path}-wal`, `${path}.lock`]) expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(statSync(join(directory, "state")).mode & 0o777).toBe(0o700);
  });

  it("is refused when it is not there, is no journal, or is of a newer version", async () => {
    expect(() => open(true)).toThrow("there is no such file");
    await open()[Symbol.asyncDispose]();
    const tamper = new DatabaseSync(path);
    tamper.exec("PRAGMA user_version = 2");
    tamper.close();
    expect(() => open()).toThrow("its format is 2");
    expect(() => open(true)).toThrow("its format is 2");
    path = join(directory, "other.db");
    const other = new DatabaseSync(path);
    other.exec("CREATE TABLE records (a)");
    other.close();
    expect(() => open()).toThrow("it is no journal of Interlock");
    path = join(directory, "text.db");
    writeFileSync(path, "x".repeat(5_000));
    expect(() => open()).toThrow("file is not a database");
  });
});

describe("an append that fails", () => {
  it("has not landed when the disk is full, and can be tried again", async () => {
    await using journal = open();
    const head = await journal.append("ledger.a", GENESIS, [record("a")]);
    const blocker = new DatabaseSync(path);
    // RAISE inside the transaction is what a full disk looks like from the outside: one statement of many fails.
    blocker.exec(
      "CREATE TRIGGER full BEFORE INSERT ON records WHEN NEW.stream = 'ledger.c' BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
    );
    const together = await Promise.allSettled([
      journal.append("ledger.a", head, [record("b")]),
      journal.append("ledger.b", GENESIS, [record("b")]),
      journal.append("ledger.c", GENESIS, [record("c")]),
    ]);
    for (const result of together) {
      expect(result.status === "rejected" && result.reason).toBeInstanceOf(JournalUnavailable);
    }
    expect(await bodies(journal, "ledger.a")).toEqual(["a"]);
    expect(await Array.fromAsync(journal.streams(""))).toEqual(["ledger.a"]);
    blocker.exec("DROP TRIGGER full");
    blocker.close();
    const stop = new AbortController();
    await journal.append("ledger.a", head, [record("b")]);
    for await (const { position, body } of journal.watch("", 1, stop.signal)) {
      expect([position, Buffer.from(body).toString()]).toEqual([2, "b"]);
      stop.abort();
    }
  });

  it("has not landed while somebody else holds the file", async () => {
    await using journal = open();
    using shell = new DatabaseSync(path);
    shell.exec("BEGIN IMMEDIATE");
    await expect(journal.append("ledger.a", GENESIS, [record("a")])).rejects.toBeInstanceOf(JournalUnavailable);
    shell.exec("COMMIT");
    await journal.append("ledger.a", GENESIS, [record("a")]);
    expect(await bodies(journal, "ledger.a")).toEqual(["a"]);
  });

  it("is said to be unavailable once the journal is closed; what came before the close landed", async () => {
    const journal = open();
    const pending = journal.append("ledger.a", GENESIS, [record("a")]);
    await journal[Symbol.asyncDispose]();
    expect((await pending).seq).toBe(1);
    await expect(journal.append("ledger.a", GENESIS, [record("b")])).rejects.toBeInstanceOf(JournalUnavailable);
    await expect(bodies(journal, "ledger.a")).rejects.toBeInstanceOf(JournalUnavailable);
  });

  it("says that the record it would build on was changed", async () => {
    const first = open();
    const head = await first.append("ledger.a", GENESIS, [record("a")]);
    await first[Symbol.asyncDispose]();
    tamper("UPDATE records SET body = 'b'");
    await using journal = open();
    await expect(journal.append("ledger.a", head, [record("c")])).rejects.toThrow("ledger.a #1 was changed");
  });
});

describe("a reader beside the writer", () => {
  it("watches live, misses nothing and sees nothing twice", async () => {
    await using writer = open();
    let head: Head = await writer.append("ledger.a", GENESIS, [record("1")]);
    await using reader = open(true);
    const stop = new AbortController();
    const seen: number[] = [];
    const watching = (async () => {
      for await (const { seq } of reader.watch("ledger.", 0, stop.signal)) {
        seen.push(seq);
        if (seq === 700) stop.abort();
      }
    })();
    while (head.seq < 700) {
      head = await writer.append("ledger.a", head, [record(`${head.seq + 1}`), record(`${head.seq + 2}`), record("3")]);
      await writer
        .append("session.a.b", GENESIS, [record("other")])
        .catch((error) => expect(error).toBeInstanceOf(Conflict));
    }
    await watching;
    expect(seen).toEqual(Array.from({ length: 700 }, (_, i) => i + 1));
  });
});

describe("tampering", () => {
  const signer = signerFromPem(newSigningKeyPem());

  beforeEach(async () => {
    await using journal = open();
    await using _checkpoints = startCheckpoints({ journal, everyMs: 60_000, signer, now: () => 1 });
    for (const stream of ["ledger.a", "session.a.b"]) {
      await journal.append(stream, GENESIS, ["one", "two", "three", "four"].map(record));
    }
  });

  it.each([
    ["nothing", "SELECT 1", { kind: "ok", records: 9, streams: 3, checkpoints: 1 }],
    [
      "one byte of a body",
      "UPDATE records SET body = X'6F6E66' WHERE stream = 'ledger.a' AND seq = 1",
      at("ledger.a", 1, "hash"),
    ],
    [
      "a body with text",
      "UPDATE records SET body = replace(body, 'two', 'six') WHERE stream = 'ledger.a'",
      at("ledger.a", 2, "hash"),
    ],
    [
      "a time",
      "UPDATE records SET time_ms = time_ms + 1 WHERE stream = 'session.a.b' AND seq = 3",
      at("session.a.b", 3, "hash"),
    ],
    [
      "a time to a negative one",
      "UPDATE records SET time_ms = -1 WHERE stream = 'ledger.a' AND seq = 3",
      at("ledger.a", 3, "time"),
    ],
    [
      "a hash",
      "UPDATE records SET hash = zeroblob(32) WHERE stream = 'ledger.a' AND seq = 4",
      at("ledger.a", 4, "hash"),
    ],
    [
      "a short prevHash",
      "UPDATE records SET prev_hash = 'x' WHERE stream = 'ledger.a' AND seq = 4",
      at("ledger.a", 4, "prevHash"),
    ],
    ["the middle away", "DELETE FROM records WHERE stream = 'ledger.a' AND seq = 2", at("ledger.a", 2, "missing")],
    [
      "the last record away",
      "DELETE FROM records WHERE stream = 'session.a.b' AND seq = 4",
      at("session.a.b", 4, "missing: checkpoint 1"),
    ],
    ["a stream away", "DELETE FROM records WHERE stream = 'ledger.a'", at("ledger.a", 1, "missing: checkpoint 1")],
    [
      "a stream's name",
      "UPDATE records SET stream = 'ledger.b' WHERE stream = 'ledger.a'",
      at("ledger.a", 1, "missing"),
    ],
    [
      "the order of positions",
      "UPDATE records SET position = 99 WHERE stream = 'ledger.a' AND seq = 1",
      at("ledger.a", 2, "position"),
    ],
    [
      "a checkpoint",
      "UPDATE records SET body = replace(body, 'e', 'f') WHERE stream = 'checkpoint'",
      at("checkpoint", 1, "hash"),
    ],
  ])("is found: %s", async (_, sql, verdict) => {
    tamper(sql);
    await using journal = open(true);
    expect(await verifyJournal(journal, { publicKeys: [signer.publicKey] })).toEqual(verdict);
  });

  function at(stream: string, seq: number, what: string) {
    return { kind: "broken", stream, seq, what: expect.stringContaining(what) };
  }
});

function tamper(sql: string): void {
  using shell = new DatabaseSync(path);
  shell.exec(sql);
}

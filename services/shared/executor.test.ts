import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type TallyCommand, tallyDecider } from "../../test/fault/tally.ts";
import type { Decider } from "./decider.ts";
import { Executor, type ExecutorOptions } from "./executor.ts";
import { type Head, type Journal, JournalUnavailable, type NewRecord } from "./journal/journal.ts";
import { openSqliteJournal } from "./journal/sqlite.ts";

/** Over a real journal. What a journal does on a bad day is done to it by a wrapper that passes everything else on. */

const STREAM = "session.demo.s1";
let cleanup: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const clean of cleanup.reverse()) await clean();
  cleanup = [];
});

function openJournal(): Journal {
  const folder = mkdtempSync(join(tmpdir(), "interlock-executor-"));
  const journal = openSqliteJournal({ path: join(folder, "journal.db"), synchronous: "normal", readOnly: false });
  cleanup.push(async () => {
    await journal[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  return journal;
}

type Append = (stream: string, head: Head, records: readonly NewRecord[]) => Promise<Head>;

/** The journal, with its append replaced. */
function withAppend(journal: Journal, append: (real: Append) => Append): Journal {
  const replaced = append(journal.append.bind(journal));
  return {
    append: replaced,
    read: journal.read.bind(journal),
    watch: journal.watch.bind(journal),
    streams: journal.streams.bind(journal),
    readSnapshot: journal.readSnapshot.bind(journal),
    writeSnapshot: journal.writeSnapshot.bind(journal),
    readCursor: journal.readCursor.bind(journal),
    writeCursor: journal.writeCursor.bind(journal),
    [Symbol.asyncDispose]: async () => {},
  };
}

type Options = Partial<ExecutorOptions<Map<string, number>, TallyCommand, never, never>>;

function executorOf(journal: Journal, options: Options = {}) {
  const executor = new Executor({ journal, decider: tallyDecider, now: () => 1, ...options } as ExecutorOptions<
    Map<string, number>,
    TallyCommand,
    ReturnType<typeof tallyDecider.eventFromJson>,
    never
  >);
  cleanup.push(() => executor[Symbol.asyncDispose]());
  return executor;
}

const add = (id: string, parts = 1): TallyCommand => ({ kind: "add", id, parts });
const ids = (state: Map<string, number>): string[] => [...state.keys()];

async function recordsOf(journal: Journal): Promise<number> {
  let count = 0;
  for await (const _ of journal.read(STREAM, 0)) count++;
  return count;
}

describe("execute", () => {
  it("answers with the events, once they are in the journal", async () => {
    const journal = openJournal();
    const decided = await executorOf(journal).execute(STREAM, add("a", 2));
    expect(decided.kind === "accepted" && decided.events.length).toBe(2);
    expect(await recordsOf(journal)).toBe(2);
  });

  it("accepts a repeat without events", async () => {
    const executor = executorOf(openJournal());
    await executor.execute(STREAM, add("a"));
    expect(await executor.execute(STREAM, add("a"))).toEqual({ kind: "accepted", events: [] });
  });

  it("gathers what arrives together into few appends, in the order it came", async () => {
    let appends = 0;
    const journal = withAppend(openJournal(), (real) => async (...args) => {
      appends++;
      return await real(...args);
    });
    const executor = executorOf(journal);
    const names = Array.from({ length: 600 }, (_, i) => `c${i}`);
    await Promise.all(names.map((name) => executor.execute(STREAM, add(name))));
    expect(await executor.read(STREAM, ids)).toEqual(names);
    expect(appends).toBeLessThanOrEqual(Math.ceil(600 / 256) + 1);
  });

  it("fails a command that cannot be decided alone", async () => {
    const broken: Decider<Map<string, number>, TallyCommand, ReturnType<typeof tallyDecider.eventFromJson>, never> = {
      ...tallyDecider,
      decide: (state, command) => {
        if (command.id === "bug") throw new Error("a bug");
        return tallyDecider.decide(state, command);
      },
    };
    const executor = executorOf(openJournal(), { decider: broken } as unknown as Options);
    const [a, bug, b] = await Promise.allSettled(["a", "bug", "b"].map((id) => executor.execute(STREAM, add(id))));
    expect([a?.status, bug?.status, b?.status]).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(await executor.read(STREAM, ids)).toEqual(["a", "b"]);
  });
});

describe("two replicas of one stream", () => {
  it("both get everything in, none of it twice", async () => {
    const journal = openJournal();
    const replicas = [executorOf(journal), executorOf(journal)];
    const names = Array.from({ length: 200 }, (_, i) => `c${i}`);
    await Promise.all(names.flatMap((name) => replicas.map((replica) => replica.execute(STREAM, add(name, 2)))));
    expect(await recordsOf(journal)).toBe(400);
    for (const replica of replicas) expect(new Set(await replica.read(STREAM, ids))).toEqual(new Set(names));
  });

  it("a read sees what the other wrote", async () => {
    const journal = openJournal();
    const [one, other] = [executorOf(journal), executorOf(journal)];
    await one.read(STREAM, ids);
    await other.execute(STREAM, add("a"));
    expect(await one.read(STREAM, ids)).toEqual(["a"]);
  });

  it("an acceptance without events, too, rests on the present state", async () => {
    const journal = openJournal();
    const [one, other] = [executorOf(journal), executorOf(journal)];
    await one.read(STREAM, ids);
    await other.execute(STREAM, add("a"));
    expect(await one.execute(STREAM, add("a"))).toEqual({ kind: "accepted", events: [] });
  });
});

describe("a journal on a bad day", () => {
  it("an append that landed without an answer is not written twice", async () => {
    const real = openJournal();
    let failed = false;
    const journal = withAppend(real, (append) => async (...args) => {
      const head = await append(...args);
      if (failed) return head;
      failed = true;
      throw new JournalUnavailable("the answer was lost");
    });
    expect((await executorOf(journal).execute(STREAM, add("a", 3))).kind).toBe("accepted");
    expect(await recordsOf(real)).toBe(3);
  });

  it("an append that did not land is tried again", async () => {
    let failures = 2;
    const journal = withAppend(openJournal(), (append) => async (...args) => {
      if (failures-- > 0) throw new JournalUnavailable("down");
      return await append(...args);
    });
    const executor = executorOf(journal);
    await executor.execute(STREAM, add("a"));
    expect(await executor.read(STREAM, ids)).toEqual(["a"]);
  });

  it("a deadline ends the wait, by name", async () => {
    const journal = withAppend(openJournal(), () => async () => {
      throw new JournalUnavailable("down");
    });
    const answer = executorOf(journal).execute(STREAM, add("a"), { deadlineMs: Date.now() + 150 });
    await expect(answer).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED", reason: "JOURNAL_UNAVAILABLE" });
  });

  it("an abort ends the wait", async () => {
    const journal = withAppend(openJournal(), () => () => new Promise(() => {}));
    const stop = new AbortController();
    const executor = new Executor({ journal, decider: tallyDecider, now: () => 1 });
    const answer = executor.execute(STREAM, add("a"), { signal: stop.signal });
    stop.abort();
    await expect(answer).rejects.toMatchObject({ code: "CANCELLED" });
  });

  it("a stream whose records do not follow from each other stops everything on it", async () => {
    const journal = openJournal();
    await executorOf(journal).execute(STREAM, add("a"));
    const read = journal.read.bind(journal);
    const bent = withAppend(journal, (append) => append);
    bent.read = async function* (stream, after) {
      for await (const record of read(stream, after)) yield { ...record, prevHash: new Uint8Array(32).fill(7) };
    };
    await expect(executorOf(bent).execute(STREAM, add("b"))).rejects.toThrow("audit verify");
  });
});

describe("snapshots", () => {
  it("start from the last one, and read only what came after", async () => {
    const journal = openJournal();
    const executor = executorOf(journal, { snapshotEvery: 10 });
    for (let i = 0; i < 25; i++) await executor.execute(STREAM, add(`c${i}`));
    await expect.poll(() => journal.readSnapshot(STREAM)).toMatchObject({ seq: 20 });
    let read = 0;
    const counted = withAppend(journal, (append) => append);
    counted.read = async function* (stream, after) {
      for await (const record of journal.read(stream, after)) {
        read++;
        yield record;
      }
    };
    expect((await executorOf(counted).read(STREAM, ids)).length).toBe(25);
    expect(read).toBe(5);
  });
});

describe("peek", () => {
  it("answers from memory, and loads what is not there", async () => {
    const journal = openJournal();
    await executorOf(journal).execute(STREAM, add("a"));
    const executor = executorOf(journal);
    expect(await executor.peek(STREAM, ids)).toEqual(["a"]);
    expect(await executor.peek(STREAM, ids)).toEqual(["a"]);
  });
});

it("keeps no more streams in memory than it may", async () => {
  const journal = openJournal();
  const executor = executorOf(journal, { maxStreams: 3 });
  for (let i = 0; i < 10; i++) await executor.execute(`session.demo.s${i}`, add("a"));
  for (let i = 0; i < 10; i++) expect(await executor.read(`session.demo.s${i}`, ids)).toEqual(["a"]);
});

it("lets what is under way end when it is disposed, and refuses what comes later", async () => {
  const executor = new Executor({ journal: openJournal(), decider: tallyDecider, now: () => 1 });
  const under = executor.execute(STREAM, add("a"));
  await executor[Symbol.asyncDispose]();
  expect((await under).kind).toBe("accepted");
  await expect(executor.execute(STREAM, add("b"))).rejects.toMatchObject({ reason: "JOURNAL_UNAVAILABLE" });
});

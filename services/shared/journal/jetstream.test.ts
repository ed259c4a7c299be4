import { DiscardPolicy, type JetStreamManager, jetstreamManager, RetentionPolicy } from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { collect, hex, read, record, text, texts } from "../../../test/contract/journal-records.ts";
import { type TallyCommand, tallyDecider } from "../../../test/fault/tally.ts";
import { eventually } from "../../../test/support/clients.ts";
import { type RunningNats, startNats } from "../../../test/support/nats.ts";
import { Executor } from "../executor.ts";
import { chainRecords } from "./chain.ts";
import { openJetstreamJournal } from "./jetstream.ts";
import { toBatch } from "./jetstream-wire.ts";
import { Conflict, GENESIS, type Head, type Journal, JournalUnavailable, type Recorded } from "./journal.ts";
import { verifyJournal } from "./verify.ts";

/** What JetStream brings besides what every journal does (test/contract/journal.test.ts): a server that dies, and others who write to it. */

const shared = new AsyncDisposableStack();
let nats: RunningNats;
beforeAll(async () => {
  nats = shared.use(await startNats({ jetstream: true }));
});
afterAll(() => shared.disposeAsync());

const STREAM = "INTERLOCK";
let tenants = 0;
/** A stream that no other test has. */
const newStream = (): string => `ledger.t${tenants++}`;

function open(url = nats.url): Promise<Journal> {
  return dial(url).then((connection) => openJetstreamJournal({ connection, replicas: 1 }));
}

function dial(url = nats.url): Promise<NatsConnection> {
  return connect({ servers: url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
}

const byText = (a: string, b: string): number => a.localeCompare(b);

/** Somebody else on the same server, with no rights withheld. */
type Stranger = AsyncDisposable & { readonly connection: NatsConnection; readonly manager: JetStreamManager };

async function enter(url = nats.url): Promise<Stranger> {
  const connection = await dial(url);
  return { connection, manager: await jetstreamManager(connection), [Symbol.asyncDispose]: () => connection.close() };
}

async function say(stranger: Stranger, stream: string, data: Uint8Array | string): Promise<void> {
  await stranger.connection.request(`interlock.journal.${stream}`, data);
}

describe("a server that dies", () => {
  it("loses nothing that was acknowledged, and is said to be gone until it is back", async () => {
    await using own = await startNats({ jetstream: true });
    await using journal = await open(own.url);
    const acknowledged: Head[] = [GENESIS];
    const last = (): Head => acknowledged.at(-1) ?? GENESIS;
    for (let round = 0; round < 3; round++) {
      const writing = (async () => {
        for (;;) acknowledged.push(await journal.append("ledger.a", last(), [record(`${last().seq + 1}`)]));
      })();
      const atLeast = last().seq + 20;
      await eventually(
        async () => last().seq,
        (seq) => seq >= atLeast,
      );
      await own.kill();
      await expect(writing).rejects.toBeInstanceOf(JournalUnavailable);
      await expect(journal.append("ledger.a", last(), [record("x")])).rejects.toBeInstanceOf(JournalUnavailable);
      await expect(read(journal, "ledger.a")).rejects.toBeInstanceOf(JournalUnavailable);
      await own.restart();
      const stored = await eventually(
        () => read(journal, "ledger.a"),
        () => true,
      );
      // Of the append whose answer never came, either is right; the writer reads the tail to learn which.
      expect([last().seq, last().seq + 1]).toContain(stored.length);
      for (const { seq, hash } of acknowledged) if (seq > 0) expect(hex(stored[seq - 1]?.hash ?? hash)).toBe(hex(hash));
      expect(texts(stored)).toEqual(stored.map(({ seq }) => `${seq}`));
      acknowledged.push(stored.at(-1) ?? GENESIS);
    }
    expect(await verifyJournal(journal, { publicKeys: [] })).toMatchObject({ kind: "ok" });
  });

  it("doubles nothing that the executor was asked for meanwhile", async () => {
    await using own = await startNats({ jetstream: true });
    await using journal = await open(own.url);
    await using executor = new Executor({ journal, decider: tallyDecider, now: () => 1 });
    const stream = "session.demo.s1";
    const add = (id: string): TallyCommand => ({ kind: "add", id, parts: 2 });
    const ids = Array.from({ length: 300 }, (_, i) => `c${i}`);
    let answered = 0;
    const half = Promise.withResolvers<void>();
    const all = Promise.all(
      ids.map(async (id, i) => {
        if (i >= 150) await half.promise;
        const decided = await executor.execute(stream, add(id), { deadlineMs: Date.now() + 15_000 });
        expect(decided.kind).toBe("accepted");
        answered += 1;
        if (answered === 100) half.resolve();
      }),
    );
    await half.promise;
    await own.kill();
    await own.restart();
    await all;
    const events = (await read(journal, stream)).map(({ body }) => JSON.parse(text(body)) as { id: string });
    expect(events.map(({ id }) => id).toSorted(byText)).toEqual(ids.flatMap((id) => [id, id]).toSorted(byText));
  });
});

describe("a server that dies and comes back", () => {
  it("is watched on without a gap or a repeat", async () => {
    await using own = await startNats({ jetstream: true });
    await using journal = await open(own.url);
    await using executor = new Executor({ journal, decider: tallyDecider, now: () => 1 });
    const seen: Recorded[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const one of journal.watch("session.", 0, stop.signal)) seen.push(one);
    })();
    const sees = (count: number) =>
      eventually(
        async () => seen.length,
        (length) => length >= count,
      );
    for (let round = 1; round <= 3; round++) {
      for (let i = 0; i < 20; i++) {
        const deadlineMs = Date.now() + 15_000;
        await executor.execute(
          `session.demo.s${i % 3}`,
          { kind: "add", id: `${round}-${i}`, parts: 2 },
          { deadlineMs },
        );
        if (i === 10 && round < 3) await own.kill().then(() => own.restart());
      }
      await sees(round * 40);
    }
    stop.abort();
    await watching;
    const stored = await collect(journal.streams("session.")).then((names) =>
      Promise.all(names.map((name) => read(journal, name))),
    );
    const wanted = stored.flat().sort((a, b) => a.position - b.position);
    expect(seen.map(({ position }) => position)).toEqual(wanted.map(({ position }) => position));
  });
});

describe("two on two connections", () => {
  it("that race on one stream: every append lands once, in one order that both see", async () => {
    await using one = await open();
    await using other = await open();
    const stream = newStream();
    const write = async (journal: Journal, name: string): Promise<number> => {
      let conflicts = 0;
      for (let n = 0; n < 60; ) {
        const head: Head = (await read(journal, stream)).at(-1) ?? GENESIS;
        try {
          await journal.append(stream, head, [record(`${name}${n}`), record(`${name}${n}+`)]);
          n += 1;
        } catch (error) {
          if (!(error instanceof Conflict)) throw error;
          conflicts += 1;
        }
      }
      return conflicts;
    };
    await Promise.all([write(one, "a"), write(other, "b"), write(one, "c"), write(other, "d")]);
    const [first, second] = [await read(one, stream), await read(other, stream)];
    expect(texts(first)).toEqual(texts(second));
    const wanted = ["a", "b", "c", "d"].flatMap((name) => Array.from({ length: 60 }, (_, n) => `${name}${n}`));
    expect(texts(first).toSorted(byText)).toEqual(wanted.flatMap((body) => [body, `${body}+`]).toSorted(byText));
    // The two records of one append are never apart (J3), and the chain holds.
    for (let i = 0; i < first.length; i += 2) expect(texts(first)[i + 1]).toBe(`${texts(first)[i]}+`);
    expect(first.map(({ seq }) => seq)).toEqual(first.map((_, i) => i + 1));
  });

  it("learn of each other's appends though they remember their own", async () => {
    await using one = await open();
    await using other = await open();
    const stream = newStream();
    const head = await one.append(stream, GENESIS, [record("a")]);
    const moved = await other.append(stream, head, [record("b")]);
    await expect(one.append(stream, head, [record("x")])).rejects.toBeInstanceOf(Conflict);
    await expect(one.append(stream, { ...moved, hash: head.hash }, [record("x")])).rejects.toBeInstanceOf(Conflict);
    expect(texts(await read(one, stream, head.seq))).toEqual(["b"]);
    expect((await one.append(stream, moved, [record("c")])).seq).toBe(3);
  });
});

describe("a JetStream that is another's", () => {
  it.each<[string, object, RegExp]>([
    ["other subjects", { subjects: ["interlock.journal.>", "orders.>"] }, /INTERLOCK has subjects/],
    ["records that end", { max_age: 3_600_000_000_000 }, /INTERLOCK has max_age/],
    ["records that push out others", { max_msgs_per_subject: 5 }, /INTERLOCK has max_msgs_per_subject/],
    ["records that may be deleted", { deny_delete: false }, /INTERLOCK has deny_delete/],
    ["records that are taken once", { retention: RetentionPolicy.Workqueue, deny_purge: false }, /INTERLOCK has/],
  ])("is refused by name: %s", async (_, different, message) => {
    await using own = await startNats({ jetstream: true });
    await using stranger = await enter(own.url);
    const kept = { deny_delete: true, deny_purge: true, discard: DiscardPolicy.New };
    const ours = { name: STREAM, subjects: ["interlock.journal.>"], ...kept };
    await stranger.manager.streams.add({ ...ours, ...different });
    await using connection = await dial(own.url);
    await expect(openJetstreamJournal({ connection, replicas: 1 })).rejects.toThrow(message);
  });

  it("is refused when it is none, or has our subjects under another name", async () => {
    await using none = await startNats({ jetstream: false });
    await using connection = await dial(none.url);
    await expect(openJetstreamJournal({ connection, replicas: 1 })).rejects.toThrow(/jetstream/i);
    await using own = await startNats({ jetstream: true });
    await using stranger = await enter(own.url);
    await stranger.manager.streams.add({ name: "ALL", subjects: ["interlock.>"] });
    await using second = await dial(own.url);
    await expect(openJetstreamJournal({ connection: second, replicas: 1 })).rejects.toThrow(/overlap/);
  });
});

describe("what somebody else has written", () => {
  it.each<[string, Uint8Array | string]>([
    ["no bytes", ""],
    ["text", '{"kind":"reserved"}'],
    ["a batch cut short", toBatch(chainRecords("x", GENESIS, [record("forged")])).subarray(0, 40)],
  ])("stops whoever reads it, by stream and message: %s", async (_, data) => {
    await using journal = await open();
    await using stranger = await enter();
    const stream = newStream();
    const head = await journal.append(stream, GENESIS, [record("a")]);
    await say(stranger, stream, data);
    const named = new RegExp(`message \\d+ of ${stream} is no append of ours`);
    await expect(read(journal, stream)).rejects.toThrow(named);
    await expect(read(journal, stream, head.seq)).rejects.toThrow(named);
    await expect(journal.append(stream, head, [record("b")])).rejects.toBeInstanceOf(Conflict);
    await expect(journal.append(stream, head, [record("b")])).rejects.toThrow(named);
    await expect(collect(journal.watch(`${stream}.`.slice(0, -1), 0, new AbortController().signal))).rejects.toThrow(
      named,
    );
    // The good record before it is still to be had, and the audit says which one is not.
    const seen: string[] = [];
    await expect(
      (async () => {
        for await (const { body } of journal.read(stream, 0)) seen.push(text(body));
      })(),
    ).rejects.toThrow(named);
    expect(seen).toEqual(["a"]);
    expect(await verifyOne(journal, stream)).toMatchObject({ kind: "broken", stream, seq: 2 });
  });

  it("and chains well is taken: only a checkpoint tells it from ours", async () => {
    await using journal = await open();
    await using stranger = await enter();
    const stream = newStream();
    const head = await journal.append(stream, GENESIS, [record("a")]);
    await say(stranger, stream, toBatch(chainRecords(stream, head, [record("forged")])));
    expect(texts(await read(journal, stream))).toEqual(["a", "forged"]);
  });

  it("and is at odds with the chain fails the executor, at once and for good", async () => {
    await using journal = await open();
    await using stranger = await enter();
    const stream = newStream();
    await using executor = new Executor({ journal, decider: tallyDecider, now: () => 1 });
    await executor.execute(stream, { kind: "add", id: "a", parts: 1 });
    const [first] = await read(journal, stream);
    if (first === undefined) throw new Error("the record is not there");
    // The same place once more, with another hash: to a reader who is there already, nothing new; to an append, no end.
    await say(stranger, stream, toBatch([{ ...first, hash: new Uint8Array(32).fill(9) }]));
    for (let i = 0; i < 2; i++) {
      await expect(executor.execute(stream, { kind: "add", id: `b${i}`, parts: 1 })).rejects.toThrow("audit verify");
    }
  });
});

/** The verdict on one stream alone, whatever other tests have done to theirs. */
function verifyOne(journal: Journal, stream: string) {
  const alone = new Proxy(journal, {
    get: (target, key) => {
      if (key === "streams")
        return async function* () {
          yield stream;
        };
      return Reflect.get(target, key).bind(target);
    },
  });
  return verifyJournal(alone, { publicKeys: [] });
}

describe("what it leaves and refuses", () => {
  it("leaves no consumer behind, however a read or a watch ends", async () => {
    await using own = await startNats({ jetstream: true });
    await using journal = await open(own.url);
    await using stranger = await enter(own.url);
    let head: Head = GENESIS;
    for (let i = 0; i < 20; i++) head = await journal.append("ledger.a", head, [record(`${i}`)]);
    expect(await read(journal, "ledger.a")).toHaveLength(20);
    for await (const { seq } of journal.read("ledger.a", 0)) if (seq === 5) break;
    const stop = new AbortController();
    for await (const { seq } of journal.watch("", 0, stop.signal)) if (seq === 20) stop.abort();
    for await (const { seq } of journal.watch("", 0, new AbortController().signal)) if (seq === 5) break;
    const consumers = async () => (await stranger.manager.streams.info(STREAM)).state.consumer_count;
    await eventually(consumers, (count) => count === 0, 5_000);
  });

  it("an append larger than NATS carries, whole or by a hair, and goes on", async () => {
    await using journal = await open();
    const stream = newStream();
    const most = 1 << 20;
    for (const size of [most * 2, most, most - 90, most - 200]) {
      const body = Buffer.alloc(size, "x");
      await expect(journal.append(stream, GENESIS, [{ timeMs: 1, body }])).rejects.toThrow(/bytes; NATS here carries/);
    }
    const body = Buffer.alloc(most - 512, "x");
    const head = await journal.append(stream, GENESIS, [{ timeMs: 1, body }]);
    expect((await journal.append(stream, head, [record("b")])).seq).toBe(2);
    expect((await read(journal, stream))[0]?.body.length).toBe(body.length);
  });

  it("keeps the last of many snapshots and cursors, and no more", async () => {
    await using own = await startNats({ jetstream: true });
    await using journal = await open(own.url);
    await using stranger = await enter(own.url);
    expect(await journal.readSnapshot("ledger.a")).toBeUndefined();
    expect(await journal.readCursor("outbox")).toBeUndefined();
    for (let n = 1; n <= 5; n++) {
      const hash = new Uint8Array(32).fill(n);
      await journal.writeSnapshot("ledger.a", { seq: n, hash, state: Buffer.from(`state ${n}`) });
      await journal.writeCursor("outbox", { position: n * 2 ** 40, state: Buffer.from(n === 5 ? "" : `${n}`) });
    }
    const snapshot = await journal.readSnapshot("ledger.a");
    expect(snapshot?.seq).toBe(5);
    expect(hex(snapshot?.hash ?? GENESIS.hash)).toBe("05".repeat(32));
    expect(text(snapshot?.state ?? Buffer.of())).toBe("state 5");
    const cursor = await journal.readCursor("outbox");
    expect(cursor?.position).toBe(5 * 2 ** 40);
    expect(cursor?.state.length).toBe(0);
    expect((await stranger.manager.streams.info("INTERLOCK_STATE")).state.messages).toBe(2);
  });
});

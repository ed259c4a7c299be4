import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { chainRecords, hashRecord } from "../../services/shared/journal/chain.ts";
import { startCheckpoints } from "../../services/shared/journal/checkpoint.ts";
import { Conflict, GENESIS, type Head, type Journal, type Recorded } from "../../services/shared/journal/journal.ts";
import { verifyJournal } from "../../services/shared/journal/verify.ts";
import { newSigningKeyPem, signerFromPem } from "../../services/shared/signing.ts";

import { journalModel } from "./journal-model.ts";
import {
  chained,
  collect,
  comparable,
  headAt,
  headOf,
  hex,
  names,
  plain,
  read,
  record,
  take,
  text,
  texts,
  without,
} from "./journal-records.ts";

/** An empty journal of its own for one test. */
export type OpenedJournal = AsyncDisposable & {
  readonly journal: Journal;
  /** Disposes the journal and opens the same one again; the result is disposed with this. */
  readonly reopen: () => Promise<Journal>;
};

export type OpenJournal = () => Promise<OpenedJournal>;

/** What every journal promises: J1 to J5 of journal.ts, and each method's own words. */
export function journalConformance(name: string, open: OpenJournal): void {
  describe(`journal on ${name}`, () => {
    describe("append and read", () => appending(open));
    describe("refuses", () => refusing(open));
    describe("under concurrency", () => concurrency(open));
    describe("watch", () => watching(open));
    describe("streams, snapshots, cursors", () => keeping(open));
    describe("checkpoints and verification", () => verifying(open));
    it("does what a map of arrays does", () => journalModel(open));
  });
}

function appending(open: OpenJournal): void {
  it("counts from 1 without a gap and returns the new head (J2)", async () => {
    await using opened = await open();
    const { journal } = opened;
    const one = await journal.append("ledger.acme", GENESIS, [record("a")]);
    const three = await journal.append("ledger.acme", one, [record("b"), record("c")]);
    const all = await read(journal, "ledger.acme");
    expect(all.map(({ seq, body }) => [seq, text(body)])).toEqual([
      [1, "a"],
      [2, "b"],
      [3, "c"],
    ]);
    expect(plain(one)).toEqual(headAt(all, 1));
    expect(plain(three)).toEqual(headAt(all, 3));
  });

  it("keeps time and the body's exact bytes, and chains them as chain.ts does (J4)", async () => {
    await using opened = await open();
    const { journal } = opened;
    const records = [
      { timeMs: 0, body: Uint8Array.of(0, 255, 10, 13) },
      { timeMs: Date.UTC(2100, 0, 1), body: new TextEncoder().encode('{"ü":"\u{1F512}"}') },
    ];
    await journal.append("session.acme.s-1", GENESIS, records);
    const stored = await read(journal, "session.acme.s-1");
    const wanted = chainRecords("session.acme.s-1", GENESIS, records);
    expect(stored.map(chained)).toEqual(wanted.map(chained));
    for (const one of stored) expect(hex(hashRecord(one))).toBe(hex(one.hash));
  });

  it("refuses a stale head, a wrong hash and a head from the future, and changes nothing (J2)", async () => {
    await using opened = await open();
    const { journal } = opened;
    const head = await journal.append("ledger.acme", GENESIS, [record("a"), record("b")]);
    const [first] = await read(journal, "ledger.acme");
    if (first === undefined) throw new Error("the record is not there");
    const stale: readonly Head[] = [
      GENESIS,
      { seq: 1, hash: first.hash },
      { seq: 2, hash: first.hash },
      { seq: 3, hash: head.hash },
    ];
    for (const wrong of stale) {
      await expect(journal.append("ledger.acme", wrong, [record("x"), record("y")])).rejects.toBeInstanceOf(Conflict);
    }
    await expect(journal.append("ledger.other", head, [record("x")])).rejects.toBeInstanceOf(Conflict);
    expect(texts(await read(journal, "ledger.acme"))).toEqual(["a", "b"]);
    expect(await read(journal, "ledger.other")).toEqual([]);
    await journal.append("ledger.acme", head, [record("c")]);
    expect(texts(await read(journal, "ledger.acme"))).toEqual(["a", "b", "c"]);
  });

  it("takes big bodies, and 256 records in one append (J3)", async () => {
    await using opened = await open();
    const { journal } = opened;
    const big = "x".repeat(100 * 1024);
    await journal.append("ledger.big", GENESIS, [record(big), record(`${big}y`)]);
    expect(texts(await read(journal, "ledger.big"))).toEqual([big, `${big}y`]);
    const many = Array.from({ length: 256 }, (_, i) => record(`r${i}`));
    const head = await journal.append("ledger.many", GENESIS, many);
    expect(head.seq).toBe(256);
    expect(texts(await read(journal, "ledger.many"))).toEqual(many.map(({ body }) => text(body)));
  });

  it("reads what comes after a seq, and nothing of a stream that is not there", async () => {
    await using opened = await open();
    const { journal } = opened;
    await journal.append("ledger.acme", GENESIS, ["a", "b", "c"].map(record));
    await journal.append("ledger.acme-2", GENESIS, [record("other")]);
    expect(texts(await read(journal, "ledger.acme", 1))).toEqual(["b", "c"]);
    expect(await read(journal, "ledger.acme", 3)).toEqual([]);
    expect(await read(journal, "ledger.acme", 9)).toEqual([]);
    expect(await read(journal, "ledger.nobody")).toEqual([]);
  });

  it("never passes an aborted read off as the whole stream", async () => {
    await using opened = await open();
    const { journal } = opened;
    await journal.append("ledger.acme", GENESIS, ["a", "b"].map(record));
    const stop = new AbortController();
    const seen: string[] = [];
    const reading = (async () => {
      for await (const { body } of journal.read("ledger.acme", 0, stop.signal)) {
        seen.push(text(body));
        stop.abort(new Error("enough"));
      }
    })();
    await expect(reading).rejects.toThrow("enough");
    expect(seen).toEqual(["a"]);
  });
}

function refusing(open: OpenJournal): void {
  it.each([
    "",
    "Ledger.acme",
    "ledger.",
    ".acme",
    "ledger.a b",
    "ledger.a.b.c",
    "ledger.*",
    "ledger.>",
    "ledger.ä",
    `ledger.${"x".repeat(65)}`,
    "ledger.acme\n",
  ])("the stream name %j", async (stream) => {
    await using opened = await open();
    await expect(opened.journal.append(stream, GENESIS, [record("a")])).rejects.toThrow(TypeError);
    expect(await names(opened.journal, "")).toEqual([]);
  });

  it("an append of nothing, an empty body and a time that is none", async () => {
    await using opened = await open();
    const { journal } = opened;
    const body = new TextEncoder().encode("{}");
    await expect(journal.append("ledger.a", GENESIS, [])).rejects.toThrow(TypeError);
    await expect(journal.append("ledger.a", GENESIS, [{ timeMs: 1, body: new Uint8Array() }])).rejects.toThrow(
      TypeError,
    );
    for (const timeMs of [Number.NaN, 1.5, -1]) {
      await expect(journal.append("ledger.a", GENESIS, [{ timeMs, body }])).rejects.toThrow(TypeError);
    }
    expect(await names(journal, "")).toEqual([]);
  });
}

function concurrency(open: OpenJournal): void {
  it("lets exactly one of many writers win each place in a stream (J2, J3)", async () => {
    await using opened = await open();
    const { journal } = opened;
    let head: Head = GENESIS;
    for (let round = 0; round < 10; round++) {
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, (_, writer) =>
          journal.append("ledger.hot", head, [record(`${writer}`), record(`${writer}`)]),
        ),
      );
      const winners = results.flatMap((result, writer) =>
        result.status === "fulfilled" ? [{ writer, head: result.value }] : [],
      );
      expect(winners).toHaveLength(1);
      for (const result of results) if (result.status === "rejected") expect(result.reason).toBeInstanceOf(Conflict);
      const [winner] = winners;
      if (winner === undefined) throw new Error("nobody won");
      expect(texts(await read(journal, "ledger.hot", head.seq))).toEqual([`${winner.writer}`, `${winner.writer}`]);
      head = winner.head;
    }
  });

  it("takes 200 streams at once; one that conflicts does not touch the others", async () => {
    await using opened = await open();
    const { journal } = opened;
    await journal.append("ledger.t7", GENESIS, [record("before")]);
    const results = await Promise.allSettled(
      Array.from({ length: 200 }, (_, i) =>
        journal.append(`ledger.t${i}`, GENESIS, [record(`a${i}`), record(`b${i}`)]),
      ),
    );
    expect(results.flatMap(({ status }, i) => (status === "rejected" ? [i] : []))).toEqual([7]);
    for (let i = 0; i < 200; i++) {
      expect(texts(await read(journal, `ledger.t${i}`))).toEqual(i === 7 ? ["before"] : [`a${i}`, `b${i}`]);
    }
  });
}

function watching(open: OpenJournal): void {
  it("delivers history, then live records, once each and in order of position (J5)", async () => {
    await using opened = await open();
    const { journal } = opened;
    const stop = new AbortController();
    const writers = Array.from({ length: 5 }, async (_, w) => {
      let head: Head = GENESIS;
      for (let i = 0; i < 60; i++)
        head = await journal.append(`session.t.w${w}`, head, [record(`${i}`), record(`${i}+`)]);
    });
    // Each watcher crosses from history to live at another place in the same storm.
    const watchers: Promise<Recorded[]>[] = [];
    for (let i = 0; i < 10; i++) {
      await journal.append("ledger.tick", headOf(await read(journal, "ledger.tick")), [record(`${i}`)]);
      watchers.push(take(journal, "session.t.", 0, 600, stop));
    }
    await Promise.all(writers);
    for (const seen of await Promise.all(watchers)) {
      expect(seen.every(({ position }, i) => i === 0 || position > (seen[i - 1]?.position ?? 0))).toBe(true);
      for (let w = 0; w < 5; w++) {
        const own = seen.filter(({ stream }) => stream === `session.t.w${w}`);
        expect(own.map(comparable)).toEqual((await read(journal, `session.t.w${w}`)).map(comparable));
      }
    }
  });

  it("delivers only the prefix, which need not end at a dot", async () => {
    await using opened = await open();
    const { journal } = opened;
    const stop = new AbortController();
    const seen = take(journal, "session.acme.a", 0, 3, stop);
    await journal.append("session.acme.a1", GENESIS, [record("1")]);
    for (const other of ["session.acme.b", "session.acme", "ledger.acme", "session.acm.a"]) {
      await journal.append(other, GENESIS, [record("other")]);
    }
    await journal.append("session.acme.a2", GENESIS, [record("2")]);
    await journal.append("session.acme.a", GENESIS, [record("3")]);
    expect(texts(await seen)).toEqual(["1", "2", "3"]);
  });

  it("goes on after a position, also one between two live records", async () => {
    await using opened = await open();
    const { journal } = opened;
    const head = await journal.append("ledger.acme", GENESIS, ["a", "b", "c"].map(record));
    const second = (await read(journal, "ledger.acme"))[1];
    if (second === undefined) throw new Error("the record is not there");
    const rest = take(journal, "", second.position, 2, new AbortController());
    await journal.append("ledger.acme", head, [record("d")]);
    expect(texts(await rest)).toEqual(["c", "d"]);
  });

  it("delivers more history than fits one page, and misses nothing while its reader is slow", async () => {
    await using opened = await open();
    const { journal } = opened;
    let head: Head = GENESIS;
    const more = async (): Promise<void> => {
      head = await journal.append(
        "ledger.long",
        head,
        Array.from({ length: 256 }, (_, i) => record(`${head.seq + i + 1}`)),
      );
    };
    for (let i = 0; i < 5; i++) await more();
    let live = Promise.resolve();
    const stop = new AbortController();
    const seen: string[] = [];
    for await (const { seq, body } of journal.watch("ledger.", 0, stop.signal)) {
      seen.push(text(body));
      // It has read all there is and waits by the time that more comes.
      if (seq === 1_280) live = sleep(20).then(more);
      // Appended while it holds a live record, and by far more than any buffer should hold.
      if (seq === 1_300) for (let i = 0; i < 20; i++) await live.then(more);
      if (seq === 6_656) stop.abort();
    }
    expect(seen).toEqual(Array.from({ length: 6_656 }, (_, i) => `${i + 1}`));
  });

  it("ends when the signal aborts: before, while it waits, and while its reader has a record in hand", async () => {
    await using opened = await open();
    const { journal } = opened;
    expect(await collect(journal.watch("", 0, AbortSignal.abort()))).toEqual([]);
    const stop = new AbortController();
    const waiting = collect(journal.watch("", 0, stop.signal));
    await journal.append("ledger.elsewhere", GENESIS, [record("a")]);
    const inHand = new AbortController();
    for await (const _ of journal.watch("", 0, inHand.signal)) inHand.abort();
    stop.abort();
    expect((await waiting).length).toBeLessThanOrEqual(1);
  });
}

function keeping(open: OpenJournal): void {
  it("names streams by prefix, sorted, each once", async () => {
    await using opened = await open();
    const { journal } = opened;
    for (const stream of ["session.b.2", "ledger.b", "session.a.1", "ledger.B", "session.ab.1", "control"]) {
      await journal.append(stream, GENESIS, [record("x"), record("y")]);
    }
    const all = ["control", "ledger.B", "ledger.b", "session.a.1", "session.ab.1", "session.b.2"];
    expect(await names(journal, "")).toEqual(all);
    expect(await names(journal, "session.")).toEqual(["session.a.1", "session.ab.1", "session.b.2"]);
    expect(await names(journal, "session.a")).toEqual(["session.a.1", "session.ab.1"]);
    expect(await names(journal, "ledger.b")).toEqual(["ledger.b"]);
    expect(await names(journal, "policy.")).toEqual([]);
  });

  it("keeps the last snapshot of each stream", async () => {
    await using opened = await open();
    const { journal } = opened;
    expect(await journal.readSnapshot("ledger.a")).toBeUndefined();
    const head = await journal.append("ledger.a", GENESIS, [record("a")]);
    const state = new TextEncoder().encode(JSON.stringify("s".repeat(200_000)));
    await journal.writeSnapshot("ledger.a", { ...head, state: new TextEncoder().encode("old") });
    await journal.writeSnapshot("ledger.a", { ...head, state });
    await journal.writeSnapshot("ledger.a-b", { ...GENESIS, state: new TextEncoder().encode("other") });
    const back = await journal.readSnapshot("ledger.a");
    expect(back === undefined ? undefined : { ...plain(back), state: text(back.state) }).toEqual({
      ...plain(head),
      state: text(state),
    });
  });

  it("keeps the last cursor of each name, with its state", async () => {
    await using opened = await open();
    const { journal } = opened;
    expect(await journal.readCursor("notifier")).toBeUndefined();
    await journal.writeCursor("notifier", { position: 1, state: new TextEncoder().encode("one") });
    await journal.writeCursor("notifier", { position: 2, state: new TextEncoder().encode("two") });
    await journal.writeCursor("resumer", { position: 0, state: new TextEncoder().encode("{}") });
    const back = await journal.readCursor("notifier");
    expect(back === undefined ? undefined : [back.position, text(back.state)]).toEqual([2, "two"]);
  });

  it("keeps all of it over a restart, and goes on where it was (J1)", async () => {
    await using opened = await open();
    const head = await opened.journal.append("ledger.acme", GENESIS, ["a", "b"].map(record));
    await opened.journal.append("session.acme.s", GENESIS, [record("c")]);
    await opened.journal.writeSnapshot("ledger.acme", { ...head, state: new TextEncoder().encode("snap") });
    await opened.journal.writeCursor("notifier", { position: 7, state: new TextEncoder().encode("cur") });
    const before = await read(opened.journal, "ledger.acme");
    const again = await opened.reopen();
    expect((await read(again, "ledger.acme")).map(comparable)).toEqual(before.map(comparable));
    expect(text((await again.readSnapshot("ledger.acme"))?.state ?? new Uint8Array())).toBe("snap");
    expect((await again.readCursor("notifier"))?.position).toBe(7);
    await expect(again.append("ledger.acme", GENESIS, [record("x")])).rejects.toBeInstanceOf(Conflict);
    await again.append("ledger.acme", head, [record("d")]);
    const seen = await take(again, "", 0, 4, new AbortController());
    expect(texts(seen)).toEqual(["a", "b", "c", "d"]);
  });
}

function verifying(open: OpenJournal): void {
  it("finds a journal whole, checkpoints included, also while it is written and over a restart", async () => {
    await using opened = await open();
    const signer = signerFromPem(newSigningKeyPem());
    const publicKeys = [signer.publicKey];
    let { journal } = opened;
    let head: Head = GENESIS;
    for (let round = 1; round <= 2; round++) {
      await using _checkpoints = startCheckpoints({ journal, everyMs: 5, signer, now: Date.now });
      for (let i = 0; i < 20; i++) {
        head = await journal.append("ledger.acme", head, [record(`${i}`)]);
        await journal.append(`session.acme.r${round}-${i}`, GENESIS, [record("x")]);
      }
      expect(await verifyJournal(journal, { publicKeys })).toMatchObject({ kind: "ok" });
      await _checkpoints[Symbol.asyncDispose]();
      const verdict = await verifyJournal(journal, { publicKeys });
      expect(verdict).toMatchObject({ kind: "ok", streams: 2 + 20 * round });
      if (verdict.kind === "ok") expect(verdict.records).toBe(40 * round + verdict.checkpoints);
      if (round === 1) journal = await opened.reopen();
    }
    // The last checkpoint covers the last record: without it the verdict is another.
    const cut = without(journal, "ledger.acme", head.seq);
    expect(await verifyJournal(cut, { publicKeys })).toMatchObject({
      kind: "broken",
      stream: "ledger.acme",
      seq: head.seq,
    });
  });
}

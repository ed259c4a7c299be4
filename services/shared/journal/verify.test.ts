import { describe, expect, it } from "vitest";
import { newSigningKeyPem, type Signer, signerFromPem } from "../signing.ts";
import { chainRecords } from "./chain.ts";
import { GENESIS, type Journal, JournalUnavailable, type NewRecord, type Recorded } from "./journal.ts";
import { verifyJournal } from "./verify.ts";

/**
 * The forger here can write anything and compute every hash, but has not the signing key. What SQLite and a shell can
 * do to a journal is in sqlite.test.ts; both engines' honest journals are in test/contract/journal-suite.ts.
 */
const signer = signerFromPem(newSigningKeyPem());
const forger = signerFromPem(newSigningKeyPem());

type Streams = { readonly [stream: string]: readonly NewRecord[] };

const record = (body: string): NewRecord => ({ timeMs: 1, body: Buffer.from(body) });
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");

const LEDGER = ["one", "two", "three"].map(record);
const REWRITTEN = ["one", "2!!", "three"].map(record);

/** A well-chained journal of what the streams say. */
function journalOf(streams: Streams, fake: Partial<Journal> = {}): Journal {
  let position = 0;
  const all = Object.entries(streams).map(([stream, records]): [string, Recorded[]] => [
    stream,
    chainRecords(stream, GENESIS, records).map((one) => ({ ...one, stream, position: ++position })),
  ]);
  const stored = new Map(all.filter(([, records]) => records.length > 0));
  const honest: Pick<Journal, "read" | "streams" | "readCursor"> = {
    read: async function* (stream, afterSeq) {
      yield* (stored.get(stream) ?? []).slice(afterSeq);
    },
    streams: async function* () {
      yield* stored.keys();
    },
    readCursor: async () => undefined,
  };
  return { ...honest, ...fake } as Journal;
}

/** Checkpoints over the first `upTo` records of the ledger each, chained to one another. */
async function checkpoints(
  ledger: readonly NewRecord[],
  upTo: readonly number[],
  by: Signer = signer,
): Promise<NewRecord[]> {
  const records: NewRecord[] = [];
  for (const [i, seq] of upTo.entries()) {
    const previous = chainRecords("checkpoint", GENESIS, records).at(-1)?.hash ?? GENESIS.hash;
    const hash = chainRecords("ledger.a", GENESIS, ledger)[seq - 1]?.hash ?? GENESIS.hash;
    const heads = { "ledger.a": { seq, hash: hex(hash) } };
    records.push(await signed({ seq: i + 1, previous: hex(previous), timeMs: 1, position: seq, heads }, by));
  }
  return records;
}

async function signed(checkpoint: object, by: Signer): Promise<NewRecord> {
  const { payload, signature, keyId } = await by.sign("checkpoint", Buffer.from(JSON.stringify(checkpoint)));
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  return record(JSON.stringify({ payload: base64(payload), signature: base64(signature), keyId }));
}

async function verdict(streams: Streams, fake: Partial<Journal> = {}): Promise<unknown> {
  return await verifyJournal(journalOf(streams, fake), { publicKeys: [signer.publicKey] });
}

const broken = (stream: string, seq: number, what: string) => ({
  kind: "broken",
  stream,
  seq,
  what: expect.stringContaining(what),
});

describe("verifyJournal", () => {
  it("finds honest journals whole: empty, without checkpoints, grown since the last one", async () => {
    expect(await verdict({})).toEqual({ kind: "ok", records: 0, streams: 0, checkpoints: 0 });
    expect(await verdict({ "ledger.a": LEDGER })).toEqual({ kind: "ok", records: 3, streams: 1, checkpoints: 0 });
    const checkpoint = await checkpoints(LEDGER, [1, 2]);
    expect(await verdict({ "ledger.a": LEDGER, "policy.a": [record("x")], checkpoint })).toEqual({
      kind: "ok",
      records: 6,
      streams: 3,
      checkpoints: 2,
    });
  });

  it("names the first record that a checkpoint knew otherwise, when a stream was written anew", async () => {
    const checkpoint = await checkpoints(LEDGER, [1, 2, 3]);
    expect(await verdict({ "ledger.a": REWRITTEN, checkpoint })).toEqual(broken("ledger.a", 2, "checkpoint 2"));
    const sparse = await checkpoints(LEDGER, [3]);
    expect(await verdict({ "ledger.a": REWRITTEN, checkpoint: sparse })).toEqual(broken("ledger.a", 3, "checkpoint 1"));
  });

  it("names what is missing, when a stream was cut short or taken away", async () => {
    const checkpoint = await checkpoints(LEDGER, [1, 3]);
    expect(await verdict({ "ledger.a": LEDGER.slice(0, 2), checkpoint })).toEqual(
      broken("ledger.a", 3, "checkpoint 2"),
    );
    expect(await verdict({ "policy.a": [record("x")], checkpoint })).toEqual(broken("ledger.a", 1, "checkpoint 1"));
  });

  it("does not take a checkpoint that another key signed", async () => {
    const checkpoint = await checkpoints(REWRITTEN, [3], forger);
    expect(await verdict({ "ledger.a": REWRITTEN, checkpoint })).toEqual(
      broken("checkpoint", 1, "not among the trusted"),
    );
  });

  it("does not take one whose content was changed under its signature, nor one signed for something else", async () => {
    const [honest] = await checkpoints(LEDGER, [3]);
    const [other] = await checkpoints(REWRITTEN, [3]);
    if (honest === undefined || other === undefined) throw new Error("no checkpoint was made");
    const body = (one: NewRecord) => JSON.parse(Buffer.from(one.body).toString());
    const mixed = record(JSON.stringify({ ...body(other), signature: body(honest).signature }));
    expect(await verdict({ "ledger.a": REWRITTEN, checkpoint: [mixed] })).toEqual(broken("checkpoint", 1, "signature"));

    const receipt = await signer.sign("receipt", Buffer.from(body(other).payload, "base64"));
    const reused = record(
      JSON.stringify({ ...body(other), signature: Buffer.from(receipt.signature).toString("base64") }),
    );
    expect(await verdict({ "ledger.a": REWRITTEN, checkpoint: [reused] })).toEqual(
      broken("checkpoint", 1, "signature"),
    );
  });

  it("does not let checkpoints be left out or put in another order, however well they are chained anew", async () => {
    const [one, two, three] = await checkpoints(LEDGER, [1, 2, 3]);
    if (one === undefined || two === undefined || three === undefined) throw new Error("no checkpoint was made");
    for (const { checkpoint, at } of [
      { checkpoint: [one, three], at: 2 },
      { checkpoint: [two], at: 1 },
      { checkpoint: [one, one], at: 2 },
    ]) {
      expect(await verdict({ "ledger.a": LEDGER, checkpoint })).toEqual(
        broken("checkpoint", at, "taken out or put in"),
      );
    }
  });

  it.each(["", "{}", "null", "not json", '{"payload":"!","signature":"","keyId":""}'])(
    "names %j in the place of one",
    async (body) => {
      const checkpoint = [record(body || " ")];
      expect(await verdict({ checkpoint })).toEqual(broken("checkpoint", 1, "no checkpoint"));
    },
  );
});

describe("an engine that has lost something", () => {
  it("names where the checkpoints were cut short, by the note of the last one", async () => {
    const checkpoint = await checkpoints(LEDGER, [1, 2, 3]);
    const note = (seq: number) => ({
      readCursor: async () => ({ position: 1, state: Buffer.from(JSON.stringify({ seq, hash: "0".repeat(64) })) }),
    });
    const cut = checkpoint.slice(0, 2);
    expect(await verdict({ "ledger.a": LEDGER, checkpoint: cut }, note(3))).toEqual(
      broken("checkpoint", 3, "checkpoint 3 has been written"),
    );
    expect(await verdict({ "ledger.a": LEDGER }, note(3))).toEqual(broken("checkpoint", 1, "it is missing"));
    expect(await verdict({ "ledger.a": LEDGER, checkpoint }, note(3))).toMatchObject({ kind: "ok" });
    expect(await verdict({ "ledger.a": LEDGER, checkpoint }, note(2))).toMatchObject({ kind: "ok" });
    const garbage = { readCursor: async () => ({ position: 1, state: Buffer.from("{") }) };
    expect(await verdict({ "ledger.a": LEDGER, checkpoint }, garbage)).toMatchObject({ kind: "ok" });
  });

  it.each(["ledger.a", "checkpoint"])("names the record of %s at which the engine cannot read on", async (bad) => {
    const streams = { "ledger.a": LEDGER, checkpoint: await checkpoints(LEDGER, [1, 3]) };
    const { read } = journalOf(streams);
    const rotten: Pick<Journal, "read"> = {
      async *read(stream, afterSeq) {
        for await (const one of read(stream, afterSeq)) {
          if (stream === bad && one.seq === 2) throw new Error("the page is torn");
          yield one;
        }
      },
    };
    expect(await verdict(streams, rotten)).toEqual(broken(bad, 2, "the page is torn"));
  });

  it("does not take an engine that does not answer for one that was tampered with", async () => {
    const down: Pick<Journal, "read"> = {
      // biome-ignore lint/correctness/useYield: it fails before it has anything to yield
      async *read() {
        throw new JournalUnavailable("down");
      },
    };
    await expect(verdict({ "ledger.a": LEDGER }, down)).rejects.toBeInstanceOf(JournalUnavailable);
  });
});

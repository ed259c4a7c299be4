import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { newSigningKeyPem, signerFromPem } from "../signing.ts";
import { type Checkpoint, parseCheckpoint, startCheckpoints } from "./checkpoint.ts";
import { GENESIS, type Head, type Journal, JournalUnavailable } from "./journal.ts";
import { openSqliteJournal } from "./sqlite.ts";
import { verifyJournal } from "./verify.ts";

const signer = signerFromPem(newSigningKeyPem());
const NEVER_MS = 3_600_000;

let directory: string;
let journal: Journal;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "interlock-checkpoint-"));
  journal = openSqliteJournal({ path: join(directory, "journal.db"), synchronous: "normal", readOnly: false });
});

afterEach(async () => {
  await journal[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true });
});

const start = (of: Journal = journal, everyMs = NEVER_MS) =>
  startCheckpoints({ journal: of, everyMs, signer, now: () => 5 });

async function grow(stream: string, records = 1): Promise<Head> {
  const head = (await Array.fromAsync(journal.read(stream, 0))).at(-1) ?? GENESIS;
  return await journal.append(
    stream,
    head,
    Array.from({ length: records }, () => ({ timeMs: 1, body: Buffer.from("{}") })),
  );
}

async function written(): Promise<Checkpoint[]> {
  const records = await Array.fromAsync(journal.read("checkpoint", 0));
  return records.map(({ body }) => parseCheckpoint(body).checkpoint);
}

async function heads(): Promise<{ [stream: string]: number }[]> {
  const seqs = ({ heads: named }: Checkpoint) =>
    Object.fromEntries(Object.entries(named).map(([name, { seq }]) => [name, seq]));
  return (await written()).map(seqs);
}

async function expectWhole(): Promise<void> {
  expect(await verifyJournal(journal, { publicKeys: [signer.publicKey] })).toMatchObject({ kind: "ok" });
}

describe("checkpoints", () => {
  it("name at their end what grew, with its hash", async () => {
    const checkpoints = start();
    const head = await grow("ledger.a", 3);
    await grow("ledger.b");
    await checkpoints[Symbol.asyncDispose]();
    expect(await heads()).toEqual([{ "ledger.a": 3, "ledger.b": 1 }]);
    const [checkpoint] = await written();
    expect(checkpoint).toMatchObject({ seq: 1, timeMs: 5, position: 4 });
    expect(checkpoint?.heads["ledger.a"]?.hash).toBe(Buffer.from(head.hash).toString("hex"));
    await expectWhole();
  });

  it("name only what grew since the last one, over restarts too, and are not written when nothing did", async () => {
    for (const streams of [["ledger.a", "ledger.b"], [], ["ledger.b", "ledger.b"], [], ["session.a.b"]]) {
      const checkpoints = start();
      for (const stream of streams) await grow(stream);
      await checkpoints[Symbol.asyncDispose]();
    }
    expect(await heads()).toEqual([{ "ledger.a": 1, "ledger.b": 1 }, { "ledger.b": 3 }, { "session.a.b": 1 }]);
    await expectWhole();
  });

  it("cover what a crashed process left uncovered, with no cursor or a broken one", async () => {
    await grow("ledger.a", 2);
    await start()[Symbol.asyncDispose]();
    expect(await heads()).toEqual([{ "ledger.a": 2 }]);
    for (const state of ["", "{}", JSON.stringify({ seq: 9, hash: "0".repeat(64) })]) {
      await journal.writeCursor("checkpoint", { position: 1_000_000, state: Buffer.from(state || " ") });
      await grow("ledger.b");
      await start()[Symbol.asyncDispose]();
    }
    expect(await heads()).toEqual([{ "ledger.a": 2 }, { "ledger.b": 1 }, { "ledger.b": 2 }, { "ledger.b": 3 }]);
    await expectWhole();
  });

  it("are written as time goes by", async () => {
    await using _checkpoints = start(journal, 1);
    for (let round = 1; round <= 3; round++) {
      const { seq } = await grow("ledger.a");
      await vi.waitFor(async () => expect((await heads()).at(-1)).toEqual({ "ledger.a": seq }));
    }
    await expectWhole();
  });

  it("are split when very many streams grew", async () => {
    let seen = 0;
    const counting = new Proxy(journal, {
      get: (target, key) => {
        if (key !== "watch") return Reflect.get(target, key).bind(target);
        return async function* (...args: Parameters<Journal["watch"]>) {
          for await (const one of target.watch(...args)) {
            seen++;
            yield one;
          }
        };
      },
    });
    await Promise.all(Array.from({ length: 4_500 }, (_, i) => grow(`session.a.s${i}`)));
    const checkpoints = start(counting);
    await vi.waitFor(() => expect(seen).toBe(4_500));
    await checkpoints[Symbol.asyncDispose]();
    const counts = (await written()).map(({ heads: named }) => Object.keys(named).length);
    expect(counts).toEqual([2_000, 2_000, 500]);
    await expectWhole();
  });
});

describe("checkpoints, when things go wrong", () => {
  it("are shared by several processes: each place is named, none of them gets stuck", async () => {
    const many = Array.from({ length: 4 }, () => start(journal, 1));
    for (let i = 0; i < 200; i++) await grow(`ledger.t${i % 7}`);
    await Promise.all(many.map((one) => one[Symbol.asyncDispose]()));
    const last = Object.assign({}, ...(await heads()));
    expect(last).toEqual(Object.fromEntries(Array.from({ length: 7 }, (_, i) => [`ledger.t${i}`, i < 4 ? 29 : 28])));
    await expectWhole();
  });

  it("wait for a journal that does not answer, and go on where they were", async () => {
    let down = true;
    const fail = async () => {
      throw new JournalUnavailable("down");
    };
    const flaky = new Proxy(journal, {
      get: (target, key) =>
        down && (key === "append" || key === "writeCursor") ? fail : Reflect.get(target, key).bind(target),
    });
    const sign = vi.spyOn(signer, "sign");
    const checkpoints = start(flaky, 1);
    await grow("ledger.a");
    await vi.waitFor(() => expect(sign.mock.calls.length).toBeGreaterThan(2));
    expect(await heads()).toEqual([]);
    down = false;
    await vi.waitFor(async () => expect(await heads()).toEqual([{ "ledger.a": 1 }]));
    await checkpoints[Symbol.asyncDispose]();
    expect(await heads()).toEqual([{ "ledger.a": 1 }]);
    sign.mockRestore();
  });

  it("end quietly over a journal that is closed under them", async () => {
    const checkpoints = start(journal, 1);
    await grow("ledger.a");
    await journal[Symbol.asyncDispose]();
    await checkpoints[Symbol.asyncDispose]();
  });

  it("take a landed checkpoint whose acknowledgement was lost for what it is", async () => {
    let lost = 0;
    const flaky = new Proxy(journal, {
      get: (target, key) => {
        if (key !== "append" || lost > 0) return Reflect.get(target, key).bind(target);
        return async (...args: Parameters<Journal["append"]>) => {
          lost++;
          await target.append(...args);
          throw new JournalUnavailable("the answer was lost");
        };
      },
    });
    const checkpoints = start(flaky, 1);
    await grow("ledger.a");
    await vi.waitFor(() => expect(lost).toBe(1));
    await grow("ledger.b");
    await checkpoints[Symbol.asyncDispose]();
    expect(await heads()).toEqual([{ "ledger.a": 1 }, { "ledger.b": 1 }]);
    await expectWhole();
  });
});

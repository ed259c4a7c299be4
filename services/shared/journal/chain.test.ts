import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chainRecords, checkAppend, hashRecord, headOf, sameHead } from "./chain.ts";
import { GENESIS } from "./journal.ts";

const record = {
  prevHash: new Uint8Array(32).fill(7),
  stream: "ledger.acme",
  seq: 2 ** 40 + 5,
  timeMs: 1_700_000_000_123,
  body: new TextEncoder().encode('{"a":1}'),
};

describe("hashRecord", () => {
  it("is SHA-256 over the documented bytes", () => {
    const integer = (value: number) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64BE(BigInt(value));
      return bytes;
    };
    const length = (value: number) => Buffer.from([value >>> 24, value >>> 16, value >>> 8, value]);
    const sizes = [0, 1, 7, 16_000, 16_384, 100_000];
    for (const size of sizes) {
      const body = Buffer.alloc(size, "x");
      const wanted = createHash("sha256")
        .update("interlock/journal/v1\0")
        .update(record.prevHash)
        .update(length(record.stream.length))
        .update(record.stream)
        .update(integer(record.seq))
        .update(integer(record.timeMs))
        .update(length(size))
        .update(body)
        .digest("hex");
      expect(Buffer.from(hashRecord({ ...record, body })).toString("hex")).toBe(wanted);
    }
  });

  it.each([
    { what: "prevHash", changed: { prevHash: new Uint8Array(32).fill(8) } },
    { what: "stream", changed: { stream: "ledger.acmf" } },
    { what: "seq", changed: { seq: record.seq + 1 } },
    { what: "seq by 2^32", changed: { seq: record.seq + 2 ** 32 } },
    { what: "timeMs", changed: { timeMs: record.timeMs + 1 } },
    { what: "one bit of the body", changed: { body: new TextEncoder().encode('{"a":0}') } },
    { what: "bytes moved from the name to the body", changed: { stream: "ledger.acm", body: Buffer.from('e{"a":1}') } },
  ])("changes with $what", ({ changed }) => {
    expect(hashRecord({ ...record, ...changed })).not.toEqual(hashRecord(record));
  });

  it.each([{ seq: 0 }, { seq: 1.5 }, { timeMs: -1 }, { timeMs: Number.NaN }, { prevHash: new Uint8Array(31) }])(
    "refuses %j",
    (changed) => {
      expect(() => hashRecord({ ...record, ...changed })).toThrow();
    },
  );
});

describe("chainRecords", () => {
  it("gives the same chain however the records are batched", () => {
    const bodies = fc.array(fc.uint8Array({ minLength: 1 }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(bodies, fc.nat({ max: 20 }), (list, cut) => {
        const records = list.map((body, timeMs) => ({ timeMs, body }));
        const whole = chainRecords("ledger.acme", GENESIS, records);
        const first = chainRecords("ledger.acme", GENESIS, records.slice(0, cut));
        const second = chainRecords("ledger.acme", headOf(GENESIS, first), records.slice(cut));
        expect([...first, ...second]).toEqual(whole);
        expect(sameHead(headOf(headOf(GENESIS, first), second), headOf(GENESIS, whole))).toBe(true);
      }),
    );
  });
});

describe("checkAppend", () => {
  const good = { timeMs: 0, body: Uint8Array.of(1) };
  it.each([
    { stream: "Ledger", records: [good] },
    { stream: "ledger", records: [] },
    { stream: "ledger", records: [good, { timeMs: 0.5, body: Uint8Array.of(1) }] },
    { stream: "ledger", records: [good, { timeMs: 0, body: new Uint8Array() }] },
  ])("refuses $stream with $records", ({ stream, records }) => {
    expect(() => checkAppend(stream, records)).toThrow(TypeError);
  });

  it("takes the names that DESIGN.md lists", () => {
    for (const stream of ["control", "ledger.acme", "session.acme.0199-a_B"]) checkAppend(stream, [good]);
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { chainRecords } from "./chain.ts";
import { fromBatch, MAX_RECORDS, messageSeqOf, positionOf, toBatch } from "./jetstream-wire.ts";
import { GENESIS, type NewRecord, type Recorded } from "./journal.ts";

const STREAM = "ledger.acme";
const read = (bytes: Uint8Array, messageSeq = 7): Recorded[] => [...fromBatch(STREAM, messageSeq, bytes)];
const record = (body: string): NewRecord => ({ timeMs: 1, body: Buffer.from(body) });
const THREE = chainRecords(STREAM, GENESIS, ["one", "two", "three"].map(record));

describe("a batch", () => {
  it("is read as it was written", () => {
    const records = fc.array(
      fc.record({
        timeMs: fc.nat({ max: Number.MAX_SAFE_INTEGER }),
        body: fc.uint8Array({ minLength: 1, maxLength: 300 }),
      }),
      { minLength: 1, maxLength: 20 },
    );
    fc.assert(
      fc.property(records, fc.nat({ max: 2 ** 40 }), fc.nat({ max: 2 ** 40 }), (list, headSeq, messageSeq) => {
        const chained = chainRecords(STREAM, { seq: headSeq, hash: new Uint8Array(32).fill(3) }, list);
        const wanted = chained.map((one, i) => ({ ...one, stream: STREAM, position: positionOf(messageSeq, i) }));
        const found = read(toBatch(chained), messageSeq);
        expect(found.map(plain)).toEqual(wanted.map(plain));
        for (const { position } of found) expect(messageSeqOf(position)).toBe(messageSeq);
      }),
    );
  });

  it("is refused wherever it is cut off, and with anything after it", () => {
    const bytes = toBatch(THREE);
    for (let length = 0; length < bytes.length; length++) {
      expect(() => read(bytes.subarray(0, length)), `${length} bytes`).toThrow(/message 7 of ledger\.acme/);
    }
    expect(() => read(Buffer.concat([bytes, Buffer.of(0)]))).toThrow("left over");
  });

  it("gives what comes before the place where it cannot be read", () => {
    const bytes = toBatch(THREE);
    const seen: number[] = [];
    const cut = bytes.subarray(0, bytes.length - 1);
    expect(() => {
      for (const { seq } of fromBatch(STREAM, 7, cut)) seen.push(seq);
    }).toThrow("cut short");
    expect(seen).toEqual([1, 2]);
  });

  it.each<[string, (bytes: Buffer) => void]>([
    ["another version", (bytes) => bytes.writeUInt8(2, 0)],
    ["no records", (bytes) => bytes.writeUInt32BE(0, 1)],
    ["fewer records than it holds", (bytes) => bytes.writeUInt32BE(2, 1)],
    ["more records than it holds", (bytes) => bytes.writeUInt32BE(4, 1)],
    ["more records than any append has", (bytes) => bytes.writeUInt32BE(MAX_RECORDS + 1, 1)],
    ["a body longer than all there is", (bytes) => bytes.writeUInt32BE(0xffff_ffff, 5 + 16 + 64)],
  ])("is refused when it says %s", (_, change) => {
    const bytes = Buffer.from(toBatch(THREE));
    change(bytes);
    expect(() => read(bytes)).toThrow("message 7 of ledger.acme is no append of ours");
  });

  it("never gives what was written as something else: one changed byte shows, or the chain shows it", () => {
    const bytes = toBatch(THREE);
    fc.assert(
      fc.property(fc.nat({ max: bytes.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(bytes);
        changed[at] = (changed[at] ?? 0) ^ flip;
        let found: Recorded[] = [];
        try {
          found = read(changed);
        } catch {
          return; // it shows
        }
        expect(found.map(plain)).not.toEqual(read(bytes).map(plain));
      }),
    );
  });

  it("is refused before it is written with more records than positions", () => {
    const many = Array.from({ length: MAX_RECORDS + 1 }, () => record("x"));
    expect(() => toBatch(chainRecords(STREAM, GENESIS, many))).toThrow(TypeError);
    expect(read(toBatch(chainRecords(STREAM, GENESIS, many.slice(1))))).toHaveLength(MAX_RECORDS);
  });
});

function plain({ seq, timeMs, body, prevHash, hash, position }: Recorded) {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  return { seq, timeMs, position, body: hex(body), prevHash: hex(prevHash), hash: hex(hash) };
}

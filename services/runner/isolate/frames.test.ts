import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FrameReader, toFrame } from "./frames.ts";

const MAX = 4_096;

function cut(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const chunks: Uint8Array[] = [];
  let at = 0;
  for (const size of sizes) {
    chunks.push(bytes.subarray(at, at + size));
    at += size;
  }
  return [...chunks, bytes.subarray(at)];
}

it("the same messages come out however the bytes are cut", () => {
  const messages = fc.array(fc.jsonValue({ maxDepth: 2 }), { maxLength: 6 });
  fc.assert(
    fc.property(messages, fc.array(fc.nat(40), { maxLength: 60 }), (sent, sizes) => {
      const reader = new FrameReader(1 << 20);
      const got = cut(Buffer.concat(sent.map(toFrame)), sizes).flatMap((chunk) => reader.push(chunk));
      expect(got).toEqual(JSON.parse(JSON.stringify(sent)));
    }),
  );
});

it("one byte at a time, and characters of several bytes", () => {
  const reader = new FrameReader(MAX);
  const got = [...toFrame({ a: "ü€😀" })].flatMap((byte) => reader.push(Uint8Array.of(byte)));
  expect(got).toEqual([{ a: "ü€😀" }]);
});

describe("refused is", () => {
  const header = (length: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(length);
    return bytes;
  };
  const bad: [what: string, bytes: Uint8Array][] = [
    ["a frame one byte too long, before its body has come", header(MAX + 1)],
    ["the longest frame there is", header(0xffffffff)],
    ["an empty frame", header(0)],
    ["what is no JSON", Buffer.concat([header(3), Buffer.from("abc")])],
    ["a bad frame behind a good one", Buffer.concat([toFrame(1), header(MAX + 1)])],
  ];
  it.each(bad)("%s", (_, bytes) => {
    expect(() => new FrameReader(MAX).push(bytes)).toThrow();
  });

  it("nothing at the bound itself", () => {
    const text = "x".repeat(MAX - 2);
    expect(new FrameReader(MAX).push(toFrame(text))).toEqual([text]);
  });
});

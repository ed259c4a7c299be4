import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameParser } from "./frames.ts";

type Frame = { readonly stream: "stdout" | "stderr"; readonly payload: Uint8Array };

const frames = fc.array(
  fc.record({
    stream: fc.constantFrom("stdout" as const, "stderr" as const),
    payload: fc.uint8Array({ maxLength: 40 }),
  }),
);

function encode({ stream, payload }: Frame): Buffer {
  const header = Buffer.alloc(8);
  header[0] = stream === "stdout" ? 1 : 2;
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

function read(chunks: readonly Buffer[]): { stdout: Buffer; stderr: Buffer } {
  const parts = { stdout: [] as Buffer[], stderr: [] as Buffer[] };
  const parser = new FrameParser((stream, bytes) => parts[stream].push(Buffer.from(bytes)));
  for (const chunk of chunks) parser.write(chunk);
  return { stdout: Buffer.concat(parts.stdout), stderr: Buffer.concat(parts.stderr) };
}

test("wherever the bytes are cut, each stream gets its own, whole and in order", () => {
  fc.assert(
    fc.property(frames, fc.array(fc.nat(500)), (sent, cuts) => {
      const bytes = Buffer.concat(sent.map(encode));
      const at = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
      const chunks = at.slice(1).map((end, index) => bytes.subarray(at[index], end));
      const of = (stream: Frame["stream"]): Buffer =>
        Buffer.concat(sent.filter((frame) => frame.stream === stream).map(({ payload }) => payload));
      expect(read(chunks)).toEqual({ stdout: of("stdout"), stderr: of("stderr") });
    }),
  );
});

test("a frame of 4 GiB is passed on piece by piece", () => {
  const header = Buffer.from([1, 0, 0, 0, 255, 255, 255, 255]);
  expect(read([header, Buffer.from("a"), Buffer.from("b")]).stdout.toString()).toBe("ab");
});

test("what is no frame is refused", () => {
  expect(() => read([Buffer.from("HTTP/1.1 500")])).toThrow("names stream 72");
});

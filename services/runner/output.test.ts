import fc from "fast-check";
import { expect, test } from "vitest";
import { CappedOutput } from "./output.ts";

function collect(limit: number, parts: readonly string[]): { output: CappedOutput; streamed: string } {
  let streamed = "";
  const output = new CappedOutput(limit, (text) => {
    streamed += text;
  });
  for (const part of parts) output.write(Buffer.from(part));
  return { output, streamed };
}

test("within the limit everything is kept and passed on", () => {
  const { output, streamed } = collect(8, ["ab", "cdé", "fg"]);
  expect(output.text()).toBe("abcdéfg");
  expect(streamed).toBe("abcdéfg");
  expect(output.truncated).toBe(false);
});

test("beyond the limit head and tail are kept and the gap is named", () => {
  const { output, streamed } = collect(10, ["0123456", "789ABC", "DEFGHIJ"]);
  expect(output.text()).toBe("01234\n[... 10 bytes cut ...]\nFGHIJ");
  expect(streamed).toBe("0123456789");
  expect(output.truncated).toBe(true);
  expect(output.totalBytes).toBe(20);
});

test("a limit of nothing keeps nothing", () => {
  const { output, streamed } = collect(0, ["abc"]);
  expect(output.text()).toBe("\n[... 3 bytes cut ...]\n");
  expect(streamed).toBe("");
});

test("no character is split, and nothing grows past its bound, whatever comes", () => {
  fc.assert(
    fc.property(fc.nat(64), fc.array(fc.string({ unit: "grapheme" }), { maxLength: 60 }), (limit, parts) => {
      const { output, streamed } = collect(limit, parts);
      expect(Buffer.byteLength(streamed)).toBeLessThanOrEqual(limit);
      const whole = parts.join("");
      expect(whole.startsWith(streamed)).toBe(true);
      if (!output.truncated) {
        expect(output.text()).toBe(whole);
        return;
      }
      const [head = "", tail = ""] = output.text().split(/\n\[\.\.\. \d+ bytes cut \.\.\.\]\n/);
      expect(whole.startsWith(head) && whole.endsWith(tail)).toBe(true);
    }),
  );
});

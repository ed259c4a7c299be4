import fc from "fast-check";
import { expect, test } from "vitest";
import { countCall, judgeRepeat, NO_REPEATS, type RepeatWindow, uncountCall } from "./repeats.ts";

function windowAfter(signatures: string): RepeatWindow {
  return [...signatures].reduce(countCall, NO_REPEATS);
}

test.each([
  ["", "a", 3, "clear"],
  ["b", "a", 3, "clear"],
  ["a", "a", 3, "repeating"],
  ["aa", "a", 3, "repeating"],
  ["aaa", "a", 3, "stopped"],
  ["aaaa", "a", 3, "stopped"],
  ["aaab", "a", 3, "clear"],
  ["aaaba", "a", 3, "repeating"],
  ["ab", "a", 1, "clear"],
  ["a", "a", 1, "stopped"],
])("after %j a call %j with limit %i is %s", (before, next, limit, verdict) => {
  expect(judgeRepeat(windowAfter(before), next, limit)).toBe(verdict);
});

test("a call that is stopped is not counted, so asking again does not end the stop", () => {
  const window = windowAfter("aaa");
  expect([judgeRepeat(window, "a", 3), judgeRepeat(window, "a", 3)]).toEqual(["stopped", "stopped"]);
  expect(window).toEqual({ signature: "a", count: 3 });
});

test.each([
  ["a", "a", "clear"],
  ["aa", "a", "repeating"],
  ["aaa", "a", "repeating"],
  ["aab", "b", "clear"],
  ["aab", "a", "clear"],
])("after %j, of which the last call of %j came to nothing, it is %s", (before, nothing, verdict) => {
  expect(judgeRepeat(uncountCall(windowAfter(before), nothing), nothing, 3)).toBe(verdict);
});

test("whatever is asked for, never more than `limit` equal calls in a row are let through, and one always is", () => {
  const calls = fc.array(fc.constantFrom("a", "b"), { maxLength: 200 });
  fc.assert(
    fc.property(calls, fc.integer({ min: 1, max: 5 }), (signatures, limit) => {
      let window = NO_REPEATS;
      const ran: string[] = [];
      for (const signature of signatures) {
        const inARow = ran.length - (ran.findLastIndex((earlier) => earlier !== signature) + 1);
        const verdict = judgeRepeat(window, signature, limit);
        expect(verdict).toBe(inARow >= limit ? "stopped" : inARow > 0 ? "repeating" : "clear");
        if (verdict === "stopped") continue;
        window = countCall(window, signature);
        ran.push(signature);
      }
    }),
  );
});

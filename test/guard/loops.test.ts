import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LOOP_LEVELS, type LoopVerdict } from "../../services/broker/guard/loops.ts";
import { WINDOW } from "../../services/broker/guard/window.ts";
import { configSchema } from "../../services/shared/config.ts";
import { measureAirline, measureLoops } from "./loop-measure.ts";
import { LoopWalk, type Step, toolOf } from "./loop-walk.ts";

const LIMITS = configSchema.parse({}).loops;

/**
 * One call a word: `a` asks tool t.a and hears what it always answers, `a1` hears answer 1, `a!` fails with a new error,
 * `A` is a tool that changes something, `pa` one that is declared a polling tool, `$a` one that costs money.
 */
function stepOf(word: string, place: number): Step {
  const [, kind = "", name = "", answer = ""] = /^([p$]?)([a-zA-Z])(.*)$/.exec(word) ?? [];
  const acts = name !== name.toLowerCase();
  const manifest = toolOf(`t.${kind === "" ? "" : "x"}${name.toLowerCase()}${acts ? "w" : ""}`, {
    effects: acts ? ["writes"] : ["reads"],
    ...(kind === "p" ? { loops: { ignore: [], polls: 5 } } : {}),
    ...(kind === "$" ? { price: { usd_micros: 10 } } : {}),
  });
  const failed = answer === "!";
  const args = failed ? { attempt_number: place } : { of: name };
  return { manifest, args, resultJson: `"${name} says ${answer}"`, error: failed ? `error ${place}` : "" };
}

function told(words: string): LoopVerdict[] {
  const walk = new LoopWalk(LIMITS);
  return words.split(" ").map((word, place) => walk.take(stepOf(word, place)));
}

function last(words: string): string {
  const verdict = told(words).at(-1);
  return verdict === undefined || verdict.level === "clear" ? "clear" : `${verdict.rule} ${verdict.level}`;
}

describe("the last call of", () => {
  test.each([
    ["a", "clear"],
    ["a b", "clear"],
    // equal calls in a row, whatever they answer
    ["a1 a2", "repeat repeating"],
    ["a1 a2 a3", "repeat repeating"],
    ["a1 a2 a3 a4", "repeat stopped"],
    ["a1 a2 a3 b a4", "clear"],
    // equal calls with equal answers
    ["a a", "repeat repeating"],
    ["a a a", "no_progress stopped"],
    ["a b a c a", "no_progress stopped"],
    ["a1 b a2 c a3 d a3", "clear"],
    ["a A a", "clear"],
    ["a a A a", "clear"],
    ["a a A a a", "repeat repeating"],
    ["A A A", "no_progress stopped"],
    ["A b A c A", "no_progress stopped"],
    // cycles, answers change
    ["a1 b1 a2 b2", "cycle warned"],
    ["a1 b1 a2 b2 a3 b3", "cycle stopped"],
    ["a1 b1 x a2 y b2 z a3 w b3", "cycle stopped"],
    ["a1 b1 c1 a2 b2 c2 a3 b3 c3", "cycle stopped"],
    ["a1 b1 b2 a2 b3 b4 a3 b5", "cycle stopped"],
    ["a1 b1 c1 d1 e1 f1 a2 b2 c2 d2 e2 f2 a3 b3 c3 d3 e3 f3", "cycle stopped"],
    ["a1 b1 c1 d1 e1 f1 g1 a2 b2 c2 d2 e2 f2 g2 a3 b3 c3 d3 e3 f3 g3", "clear"],
    ["a1 b1 c1 b2 a2 c2", "cycle warned"],
    // failures
    ["a! a! a! a!", "errors warned"],
    ["a! a! a! a! a! a! a!", "errors ask"],
    ["a! a! a! a! a! a! a1 a!", "clear"],
    ["a! a! A a! a!", "clear"],
    ["a! b! a! b! a! b! a! b!", "errors warned"],
    // polling
    ["pa pa pa", "clear"],
    ["pa pa pa pa", "polling warned"],
    ["pa pa pa pa pa pa", "polling stopped"],
    ["pa b pa c pa d pa e pa f pa", "polling stopped"],
    ["pa pa pa pa pa1 pa", "clear"],
  ])("%s: %s", (words, want) => expect(last(words)).toBe(want));

  test("24 paid calls that bring nothing new asks people", () => {
    // Four answers, over and over, each time for another question.
    const walk = new LoopWalk(LIMITS);
    const steps = Array.from({ length: 32 }, (_, i) => ({
      ...stepOf("$a", i),
      args: { n: i },
      resultJson: `"${i % 4}"`,
    }));
    const levels = steps.map((step) => walk.take(step).level);
    expect(levels.indexOf("warned")).toBe(4 + 11);
    expect(levels.indexOf("ask")).toBe(4 + 23);
  });
});

describe("L1: what is refused stays refused", () => {
  test.each([
    ["equal answers", "a a a a a a"],
    ["one call of a cycle, again", "a1 b1 a2 b2 a3 b3 b3 b3"],
    ["the other call of a cycle", "a1 b1 a2 b2 a3 b3 a4"],
    ["each in turn", "a1 b1 a2 b2 a3 b3 a4 b4 a5 b5"],
    ["one of three", "a1 b1 c1 a2 b2 c2 a3 b3 c3 a4 b4"],
  ])("%s", (_, words) => expect(told(words).at(-1)?.level).toBe("stopped"));

  test("an agent that is refused ten times has ended its session, for every call", () => {
    const words = `a a ${"a ".repeat(10)}b`;
    expect(last(words)).toBe("session stopped");
    expect(last(`${words} c d e`)).toBe("session stopped");
  });
});

describe("like calls", () => {
  const of = (args: Step["args"], more: Partial<Step> = {}): Step => ({ ...stepOf("a", 0), args, ...more });
  const uuid = (n: number) => `0193a1b2-0000-7000-8000-00000000000${n}`;

  function levelsOf(steps: readonly Step[]): string[] {
    const walk = new LoopWalk(LIMITS);
    return steps.map((step) => walk.take(step).level);
  }

  test.each<[string, (n: number) => Step, boolean]>([
    ["other ids, equal answers", (n) => of({ request: uuid(n) }), true],
    ["other ids, other answers", (n) => of({ request: uuid(n) }, { resultJson: `"${n}"` }), false],
    ["other times of day", (n) => of({ at: `2026-03-04T10:0${n}:00Z` }), true],
    ["other Unix times", (n) => of({ since: 1_700_000_000_000 + n }), true],
    ["other cursors", (n) => of({ next_cursor: `c${n}` }), true],
    ["answers that differ in a time", (n) => of({}, { resultJson: `{"at":"2026-03-04T10:00:0${n}.1Z"}` }), true],
    ["other days are other questions", (n) => of({ date: `2026-03-0${n}` }), false],
    ["other words", (n) => of({ text: `word${n}` }), false],
    ["small numbers", (n) => of({ page: n }), false],
    [
      "other ids, of a tool that changes something",
      (n) => ({ ...stepOf("A", 0), args: { to: uuid(n) }, resultJson: '"ok"' }),
      false,
    ],
    [
      "an argument that the manifest says to ignore",
      (n) => ({ ...of({ q: "x", position: n }), manifest: toolOf("t.feed", { loops: { ignore: ["position"] } }) }),
      true,
    ],
  ])("%s", (_, step, isLoop) => {
    expect(levelsOf([1, 2, 3].map(step)).at(-1)).toBe(isLoop ? "stopped" : "clear");
  });
});

test("the window is bounded, and a verdict depends on nothing else", () => {
  const word = fc.constantFrom("a", "b", "a1", "b1", "A", "a!", "pa", "$a", "c", "d");
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 200 }), (words) => {
      const walk = new LoopWalk(LIMITS);
      for (const [place, item] of words.entries()) {
        expect(LOOP_LEVELS).toContain(walk.take(stepOf(item, place)).level);
        expect(walk.window.length).toBeLessThanOrEqual(WINDOW);
      }
    }),
    { numRuns: 50 },
  );
});

describe("measured", () => {
  test("at most one in a hundred successful airline runs is interrupted", () => {
    const { succeeded } = measureAirline(LIMITS);
    expect(succeeded.runs).toBe(49);
    expect(succeeded.interrupted / succeeded.runs).toBeLessThanOrEqual(0.01);
  });

  test.each([0, 0.3])(
    "every repeat and every cycle is caught by its third turn, %f of all calls being others",
    (share) => {
      for (const { kind, seeds, byThirdTurn, noiseHit } of measureLoops(LIMITS, 100, { share, deeds: false })) {
        const want = kind === "a tool that fails, other arguments each time" ? 0 : seeds;
        expect({ kind, byThirdTurn, noiseHit }).toEqual({ kind, byThirdTurn: want, noiseHit: 0 });
      }
    },
  );
});

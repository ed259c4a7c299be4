import { describe, expect, it } from "vitest";
import { fromStatus } from "../shared/rpc/status.ts";
import type { Tool } from "./catalog.ts";
import { callOf, resultOf } from "./fixture.ts";
import { type Ancestor, type CallView, type Outcome, summaryOf } from "./model.ts";
import { type Answer, ancestorsOf, demandGrant, NestedCalls, refuseCircle, withCalls } from "./nested.ts";

const toolWith = (calls?: readonly string[]): Tool =>
  ({ manifest: { sandbox: { kind: "isolate", code: "", ...(calls && { calls }) } } }) as unknown as Tool;
const ancestor = (tool: string): Ancestor => {
  const { callId, principal, argumentsHash } = callOf({});
  return { callId, principal, argumentsHash, tool };
};

describe("a call is granted by every one above it, or refused:", () => {
  const tools: Readonly<Record<string, Tool>> = {
    wide: toolWith(["x.*", "y.one"]),
    narrow: toolWith(["x.one"]),
    none: toolWith(),
    container: { manifest: { sandbox: { kind: "container" } } } as unknown as Tool,
  };
  const cases: [called: string, chain: string[], reason: string | undefined][] = [
    ["x.one", ["wide"], undefined],
    ["x.two", ["wide"], undefined],
    ["x.one", ["wide", "narrow"], undefined],
    ["x.two", ["wide", "narrow"], "CALL_NOT_GRANTED"],
    ["x.two", ["narrow", "wide"], "CALL_NOT_GRANTED"],
    ["y.two", ["wide"], "CALL_NOT_GRANTED"],
    ["xx.one", ["wide"], "CALL_NOT_GRANTED"],
    ["x", ["wide"], "CALL_NOT_GRANTED"],
    ["x.one", ["none"], "CALL_NOT_GRANTED"],
    ["x.one", ["container"], "CALL_NOT_GRANTED"],
    ["x.one", ["gone"], "CALL_NOT_GRANTED"],
    ["x.one", ["wide", "wide", "wide"], undefined],
    ["x.one", ["wide", "wide", "wide", "wide"], "NESTING_TOO_DEEP"],
  ];
  it.each(cases)("%s by %j", (called, chain, reason) => {
    const attempt = (): void => demandGrant(called, chain.map(ancestor), (name) => tools[name]);
    if (reason === undefined) expect(attempt).not.toThrow();
    else expect(attempt).toThrow(expect.objectContaining({ reason }));
  });
});

it("a call's ancestors are itself and its own, nearest first", () => {
  const top = callOf({ callId: "a" });
  const middle = { ...callOf({ callId: "b" }), ancestors: ancestorsOf(top) };
  expect(ancestorsOf(middle).map(({ callId }) => callId)).toEqual(["b", "a"]);
});

it("a call in the words of one above it is a circle; with other arguments it is not", () => {
  const call = callOf({});
  expect(() => refuseCircle(call, ancestorsOf(call))).toThrow(expect.objectContaining({ reason: "LOOP_DETECTED" }));
  expect(() => refuseCircle({ ...call, argumentsHash: "other" }, ancestorsOf(call))).not.toThrow();
});

const never = new AbortController().signal;
const asked = { tool: "x.y", argumentsJson: "{}" };

function ended(outcome: Outcome): CallView {
  const call = summaryOf(callOf({}));
  return { call, decision: undefined, progress: { kind: "ended", outcome, charged: [], receipt: undefined, endMs: 0 } };
}

const said = (answer: Answer): string =>
  answer.case === "error" ? fromStatus(answer.value).reason : `value ${answer.value}`;

describe("what the program gets of", () => {
  const outcomes: [what: string, outcome: Outcome, want: string][] = [
    ["a value", { kind: "succeeded", result: resultOf({ resultJson: "[1]" }) }, "value [1]"],
    [
      "a tool that only printed",
      { kind: "succeeded", result: resultOf({ resultJson: "", stdout: "a\n" }) },
      'value "a\\n"',
    ],
    ["a tool that failed", { kind: "failed", result: resultOf({ error: "no" }) }, "TOOL_FAILED"],
    ["a call that was cancelled", { kind: "cancelled", reason: "enough" }, "CALL_CANCELLED"],
    ["a call whose end is lost", { kind: "outcome_unknown", message: "?" }, "OUTCOME_UNKNOWN"],
  ];
  it.each(outcomes)("%s", async (_, outcome, want) => {
    const answer = await withCalls(
      1,
      never,
      async () => ended(outcome),
      (call) => call(asked),
    );
    expect(said(answer)).toBe(want);
  });
});

it("calls are counted, also those that fail", async () => {
  const calls = new NestedCalls(2, never, async () => Promise.reject(new Error("no")));
  const answers = [await calls.call(asked), await calls.call(asked), await calls.call(asked)];
  expect(answers.map(said)).toEqual(["INTERNAL", "INTERNAL", "TOO_MANY_CALLS"]);
});

it("none outlives its program: what is under way is ended and waited for", async () => {
  let endedAs = "";
  const going = withCalls(
    1,
    never,
    (_, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener("abort", () => {
          endedAs = (signal.reason as { reason: string }).reason;
          reject(signal.reason as Error);
        });
      }),
    async (call) => {
      void call(asked);
      return "over";
    },
  );
  expect(await going).toBe("over");
  expect(endedAs).toBe("PROGRAM_ENDED");
});

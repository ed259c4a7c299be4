import { describe, expect, test } from "vitest";
import {
  ALLOW,
  ASK,
  type CallChange,
  callOf,
  EXACT_ONLY,
  NOW_MS,
  REFUSED,
  refusalOf,
  SUCCEEDED,
  summary,
} from "./fixture.ts";
import type { Outcome } from "./model.ts";
import {
  type Basis,
  glance,
  KEEP_CALLS,
  type SessionCommand,
  type SessionEvent,
  type SessionState,
  sessionDecider,
} from "./session.ts";

const { initial, decide, evolve } = sessionDecider;
const LIMITS = EXACT_ONLY;
const BASIS: Basis = { labels: [], loop: "clear", limits: LIMITS };
const PRICE = [{ unit: "calls", value: 1 }];

type Begin = { readonly call?: CallChange; readonly basis?: Partial<Basis> };

function park({ call, basis }: Begin = {}): SessionCommand {
  const begun = { call: callOf(call), decision: ASK, price: PRICE, basis: { ...BASIS, ...basis } };
  return { kind: "park", expiresMs: NOW_MS + 1000, ...begun };
}

function admit(
  attempt = "try-1",
  { call, basis, replaces }: Begin & { readonly replaces?: string } = {},
): SessionCommand {
  const begun = { call: callOf(call), decision: ALLOW, price: PRICE, basis: { ...BASIS, ...basis } };
  return {
    kind: "admit",
    attempt,
    deadlineMs: NOW_MS + 1000,
    ...begun,
    ...(replaces === undefined ? {} : { replaces }),
  };
}

type End = {
  readonly call?: CallChange;
  readonly outcome?: Outcome;
  readonly attempts?: readonly string[];
  readonly addLabels?: readonly string[];
};

function end({ call, outcome = SUCCEEDED, attempts = ["try-1"], addLabels = [] }: End = {}): SessionCommand {
  const ended = { call: summary(call), decision: ALLOW, outcome, charged: PRICE, receipt: undefined, endMs: NOW_MS };
  return { kind: "end", ...ended, attempts, addLabels };
}

function cancel(callId = "call-1"): SessionCommand {
  return { kind: "cancel", callId, reason: "enough" };
}

/** What a command comes to: the events' kinds, or why not. */
function ask(state: SessionState, command: SessionCommand): string {
  const decided = decide(state, command);
  return decided.kind === "refused" ? `no: ${decided.refusal.kind}` : decided.events.map(({ kind }) => kind).join(" ");
}

/** Every command must be taken. */
function stateAfter(...commands: readonly SessionCommand[]): SessionState {
  return commands.reduce((state, command) => {
    const decided = decide(state, command);
    if (decided.kind === "refused") throw new Error(`${command.kind}: ${decided.refusal.kind}`);
    return decided.events.reduce(evolve, state);
  }, initial());
}

const OTHER: CallChange = { callId: "call-2", argumentsJson: '{"order":2}' };

describe("each command in each state of its call", () => {
  const states = {
    unknown: () => stateAfter(),
    parked: () => stateAfter(park()),
    admitted: () => stateAfter(admit()),
    "admitted after parking": () => stateAfter(park(), admit()),
    ended: () => stateAfter(admit(), end()),
    "refused at once": () => stateAfter(end({ outcome: REFUSED, attempts: [] })),
    cancelling: () => stateAfter(admit(), cancel()),
  } as const;

  test.each<[keyof typeof states, string, SessionCommand, string]>([
    ["unknown", "park", park(), "parked"],
    ["unknown", "admit", admit(), "admitted"],
    ["unknown", "end", end({ outcome: REFUSED, attempts: [] }), "ended"],
    ["unknown", "cancel", cancel(), "no: unknown_call"],
    ["parked", "park", park(), ""],
    ["parked", "admit", admit(), "admitted"],
    ["parked", "end", end({ attempts: [] }), "ended"],
    ["parked", "end by one who has not admitted it", end({ attempts: ["try-9"] }), "ended"],
    ["parked", "cancel", cancel(), "cancelling"],
    ["admitted", "park", park(), "no: taken"],
    ["admitted", "admit", admit(), ""],
    ["admitted", "admit by another", admit("try-2"), "no: taken"],
    ["admitted", "admit in its place", admit("try-2", { replaces: "try-1" }), "admitted"],
    ["admitted", "admit in another's place", admit("try-3", { replaces: "try-2" }), "no: taken"],
    ["admitted", "end", end(), "ended"],
    ["admitted", "end by another", end({ attempts: ["try-2"] }), "no: taken"],
    ["admitted", "end by its successor", end({ attempts: ["try-2", "try-1"] }), "ended"],
    ["admitted", "end of what waits", end({ attempts: [] }), "no: taken"],
    ["admitted", "cancel", cancel(), "cancelling"],
    ["admitted after parking", "park", park(), "no: taken"],
    ["admitted after parking", "admit", admit(), ""],
    ["admitted after parking", "a no of people", end({ attempts: ["try-2"], outcome: REFUSED }), "no: taken"],
    ["ended", "park", park(), "no: taken"],
    ["ended", "admit", admit(), "no: taken"],
    ["ended", "admit in its place", admit("try-2", { replaces: "try-1" }), "no: taken"],
    ["ended", "end", end(), ""],
    ["ended", "end otherwise", end({ outcome: REFUSED }), ""],
    ["ended", "cancel", cancel(), "no: taken"],
    ["refused at once", "admit", admit(), "no: taken"],
    ["refused at once", "park", park(), "no: taken"],
    ["refused at once", "end", end({ outcome: REFUSED, attempts: [] }), ""],
    ["cancelling", "cancel", cancel(), ""],
    ["cancelling", "end", end(), "ended"],
  ])("%s: %s", (state, _, command, want) => expect(ask(states[state](), command)).toBe(want));
});

describe("S2: idempotency keys", () => {
  const keyed = { idempotencyKey: "k" };
  const again = { ...keyed, callId: "call-2" };
  const changed = { ...again, argumentsJson: "{}" };

  test.each([
    ["parked", () => stateAfter(park({ call: keyed }))],
    ["admitted", () => stateAfter(admit("try-1", { call: keyed }))],
    ["ended", () => stateAfter(admit("try-1", { call: keyed }), end({ call: keyed }))],
    ["refused by people", () => stateAfter(park({ call: keyed }), end({ call: keyed, outcome: REFUSED }))],
  ])("of a call that is %s", (_, state) => {
    for (const begin of [park, (given: Begin) => admit("try-2", given)]) {
      expect(decide(state(), begin({ call: again }))).toEqual({
        kind: "refused",
        refusal: { kind: "repeated_key", callId: "call-1" },
      });
      expect(decide(state(), begin({ call: changed }))).toMatchObject({ refusal: { kind: "key_mismatch" } });
      expect(decide(state(), begin({ call: { ...again, tool: "orders.refund" } }))).toMatchObject({
        refusal: { kind: "key_mismatch", callId: "call-1" },
      });
    }
  });

  test("a call that was refused before anything was held does not keep its key", () => {
    const state = stateAfter(end({ call: keyed, outcome: REFUSED, attempts: [] }));
    expect(ask(state, admit("try-2", { call: again }))).toBe("admitted");
  });

  test.each([
    ["reserve", "admitted"],
    ["run", "no: repeated_key"],
  ] as const)("a call that was admitted and refused at %s", (stage, want) => {
    const outcome: Outcome = { kind: "refused", refusal: refusalOf({ stage }) };
    const state = stateAfter(admit("try-1", { call: keyed }), end({ call: keyed, outcome }));
    expect(ask(state, admit("try-2", { call: again }))).toBe(want);
  });

  test("calls without a key never meet", () => {
    expect(ask(stateAfter(admit()), admit("try-2", { call: OTHER }))).toBe("admitted");
  });

  test("a call never meets itself", () => {
    expect(ask(stateAfter(park({ call: keyed })), admit("try-1", { call: keyed }))).toBe("admitted");
    expect(glance(stateAfter(park({ call: keyed })), callOf(keyed), LIMITS).earlier).toBeUndefined();
  });
});

describe("S3: what a call was decided on is what the session holds", () => {
  const labelled = () => stateAfter(admit(), end({ addLabels: ["private-data", "untrusted-input"] }));
  const labels = ["private-data", "untrusted-input"];

  test("labels are kept once each, sorted", () => {
    const second = { attempts: ["try-2"], call: OTHER, addLabels: ["a-first", "private-data"] };
    const admitted = admit("try-2", { call: OTHER, basis: { labels } });
    expect(stateAfter(admit(), end({ addLabels: labels.toReversed() }), admitted, end(second)).labels).toEqual([
      "a-first",
      ...labels,
    ]);
  });

  test.each([
    ["none", [], "no: outdated"],
    ["fewer", ["private-data"], "no: outdated"],
    ["the same", labels, "admitted"],
    ["more", [...labels, "zz"], "no: outdated"],
    ["others", ["private-data", "zz"], "no: outdated"],
  ])("decided on %s labels", (_, basis, want) => {
    expect(ask(labelled(), admit("try-2", { call: OTHER, basis: { labels: basis } }))).toBe(want);
  });

  test("a parked call is decided again when the session has been labelled since", () => {
    const state = stateAfter(
      park(),
      admit("try-2", { call: OTHER }),
      end({ call: OTHER, attempts: ["try-2"], addLabels: labels }),
    );
    expect(ask(state, admit())).toBe("no: outdated");
    expect(ask(state, admit("try-1", { basis: { labels } }))).toBe("admitted");
  });

  test.each([
    ["clear", "no: outdated"],
    ["repeating", "admitted"],
    ["stopped", "no: outdated"],
  ] as const)("decided as %s when it repeats the last call", (loop, want) => {
    expect(ask(stateAfter(admit()), admit("try-2", { call: { callId: "call-2" }, basis: { loop } }))).toBe(want);
  });

  test("a loop that reached its limit in the meantime is decided again", () => {
    const repeat = (n: number) =>
      admit("try-1", { call: { callId: `call-${n}` }, basis: { loop: n === 1 ? "clear" : "repeating" } });
    const state = stateAfter(repeat(1), repeat(2), repeat(3));
    expect(ask(state, repeat(4))).toBe("no: outdated");
    expect(glance(state, callOf({ callId: "call-4" }), LIMITS).loop.level).toBe("stopped");
  });
});

describe("what counts as a repeat", () => {
  const fresh = callOf({ callId: "call-2" });

  test.each<[string, SessionCommand[], string]>([
    ["a call that was admitted", [admit()], "repeating"],
    ["a call that was parked, once", [park(), admit()], "repeating"],
    ["a denial", [end({ outcome: { kind: "refused", refusal: refusalOf({ reason: "POLICY_DENIED" }) } })], "repeating"],
    ["a cancelled one", [end({ outcome: { kind: "cancelled", reason: "enough" } })], "repeating"],
    ["not a fault", [end({ outcome: REFUSED })], "clear"],
    ["not a veto", [end({ outcome: { kind: "refused", refusal: refusalOf({ reason: "LOOP_DETECTED" }) } })], "clear"],
  ])("%s", (_, commands, want) => expect(glance(stateAfter(...commands), fresh, LIMITS).loop.level).toBe(want));

  test("a call that is known is no repeat of itself", () => {
    expect(glance(stateAfter(park()), callOf(), { ...LIMITS, exact_repeat_limit: 1 }).loop.level).toBe("clear");
  });
});

describe("S4: the session belongs to its first agent", () => {
  const foreign: CallChange = { ...OTHER, principal: { agent: "intruder" } };

  test.each([
    ["parked", () => stateAfter(park())],
    ["admitted", () => stateAfter(admit())],
    ["refused", () => stateAfter(end({ outcome: REFUSED, attempts: [] }))],
  ])("after a call that was %s", (_, state) => {
    expect(ask(state(), park({ call: foreign }))).toBe("no: foreign_session");
    expect(ask(state(), admit("try-2", { call: foreign }))).toBe("no: foreign_session");
    expect(ask(state(), end({ call: foreign, outcome: REFUSED, attempts: [] }))).toBe("no: foreign_session");
    expect(glance(state(), callOf(foreign), LIMITS).foreign).toBe(true);
    expect(glance(state(), callOf(OTHER), LIMITS).foreign).toBe(false);
  });
});

test("an entry says where its arguments and where its latest record are", () => {
  expect(stateAfter(park()).calls.get("call-1")).toMatchObject({ kind: "parked", seq: 1, startSeq: 1 });
  expect(stateAfter(park(), admit()).calls.get("call-1")).toMatchObject({ seq: 2, startSeq: 1, attempt: "try-1" });
  expect(stateAfter(park(), admit(), cancel(), end()).calls.get("call-1")).toMatchObject({ seq: 4, startSeq: 1 });
});

test("the call id is the second word of every event, where the broker looks for it without parsing", () => {
  const kinds: string[] = [];
  let state = initial();
  for (const command of [park({ call: { callId: "call-1" } }), admit(), cancel(), end()]) {
    const decided = decide(state, command);
    for (const event of decided.kind === "accepted" ? decided.events : []) {
      kinds.push(event.kind);
      expect(JSON.stringify(sessionDecider.eventToJson(event))).toMatch(/^\{"kind":"[a-z]+","callId":"call-1"/);
      state = evolve(state, event);
    }
  }
  expect(kinds).toEqual(["parked", "admitted", "cancelling", "ended"]);
});

test(`remembers the last ${KEEP_CALLS} calls and every one that has not ended`, () => {
  const more = 50;
  let state = stateAfter(park({ call: { callId: "waits", idempotencyKey: "waits", argumentsJson: "{}" } }));
  const endedEvent = (n: number): SessionEvent[] => {
    const call = callOf({ callId: `c${n}`, idempotencyKey: `k${n}`, argumentsJson: `{"n":${n}}` });
    const admitted: SessionEvent = {
      kind: "admitted",
      callId: call.callId,
      ...{ call, decision: ALLOW, price: PRICE, attempt: "a", deadlineMs: NOW_MS },
    };
    const { argumentsJson: _, ...short } = call;
    const rest = { decision: ALLOW, outcome: SUCCEEDED, charged: PRICE, receipt: undefined, endMs: NOW_MS };
    return [admitted, { kind: "ended", callId: call.callId, labels: [], call: short, ...rest }];
  };
  for (let n = 1; n <= KEEP_CALLS + more; n++) state = endedEvent(n).reduce(evolve, state);
  expect([state.calls.size, state.keys.size]).toEqual([KEEP_CALLS, KEEP_CALLS]);
  expect(state.calls.get("waits")?.kind).toBe("parked");
  expect([state.calls.has(`c${more + 1}`), state.calls.has(`c${more + 2}`)]).toEqual([false, true]);
  expect([state.keys.has(`k${more + 1}`), state.keys.has(`k${more + 2}`)]).toEqual([false, true]);
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  advance,
  begin,
  type CallCommand,
  type CallEvent,
  type CallProgress,
  endLost,
  endParked,
  type Held,
  rerun,
  resume,
  type Step,
} from "./call.ts";
import { ALLOW, ASK, callOf, DENY, refusalOf, resultOf } from "./fixture.ts";
import { type RunResult, STAGES, type Stage, signatureOf } from "./model.ts";

const HELD: Held = { decision: undefined, reserved: false, approved: false, asked: false, mayHaveRun: false };
const RESERVED: Held = { ...HELD, decision: ALLOW, reserved: true };
const ASKED: Held = { ...RESERVED, decision: ASK, asked: true };
const RESUMED: Held = { ...HELD, reserved: true, approved: true };
const RERUN: Held = { ...RESERVED, approved: true, mayHaveRun: true };

const EVENTS: { readonly [K in CallEvent["kind"]]: Extract<CallEvent, { kind: K }> } = {
  cleared: { kind: "cleared" },
  decided: { kind: "decided", decision: ALLOW },
  reserved: { kind: "reserved" },
  parked: { kind: "parked" },
  admitted: { kind: "admitted" },
  outdated: { kind: "outdated" },
  repeated: { kind: "repeated", callId: "first" },
  taken: { kind: "taken" },
  ran: { kind: "ran", result: resultOf() },
  filtered: { kind: "filtered", result: resultOf() },
  stopped: { kind: "stopped", reason: "enough" },
  lost: { kind: "lost", message: "gone" },
  refused: { kind: "refused", refusal: refusalOf() },
  ended: { kind: "ended", outcome: { kind: "cancelled", reason: "enough" } },
};
const CANCELLED: CallEvent = { kind: "refused", refusal: refusalOf({ code: "CANCELLED", message: "enough" }) };

/** What each stage's command may come to. */
const MAY_FOLLOW: Readonly<Record<Stage, readonly CallEvent["kind"][]>> = {
  authenticate: [],
  resolve: [],
  guard: ["cleared", "repeated", "refused"],
  decide: ["decided", "refused"],
  reserve: ["reserved", "refused"],
  approve: ["parked", "outdated", "repeated", "taken", "refused"],
  permit: ["admitted", "outdated", "repeated", "taken", "refused"],
  run: ["ran", "stopped", "lost", "refused"],
  filter: ["filtered", "refused"],
  settle: ["ended", "taken"],
  receipt: [],
};

/** A step in one line: where it goes, what is to be done, and what that undoes. */
function show({ state, command }: Step): string {
  const where = state.kind === "active" ? state.at : state.kind;
  switch (command.kind) {
    case "end": {
      const { outcome, undo } = command;
      return `${where}: end ${outcome.kind}, ${undo.hold}${undo.withdrawApproval ? ", withdraw" : ""}`;
    }
    case "yield":
      return `${where}: yield, ${command.undo.hold}${command.undo.withdrawApproval ? ", withdraw" : ""}`;
    default:
      return `${where}: ${command.kind}`;
  }
}

function at(stage: Stage, held: Held): CallProgress {
  return { kind: "active", at: stage, held };
}

describe("the ways in", () => {
  test.each([
    ["a new call", begin(), "guard: guard"],
    ["a call that people allowed", resume(), "guard: guard"],
    ["a lost call, once more", rerun(ALLOW), "permit: hold"],
    ["a lost call", endLost(ALLOW), "parked: end outcome_unknown, charge"],
    ["a no", endParked({ kind: "cancelled", reason: "no" }, ASK, false), "parked: end cancelled, release"],
    [
      "a withdrawal",
      endParked({ kind: "cancelled", reason: "no" }, ASK, true),
      "parked: end cancelled, release, withdraw",
    ],
  ])("%s", (_, step, want) => expect(show(step)).toBe(want));
});

describe("each stage and what may come of it", () => {
  const table: readonly (readonly [Stage, string, Held, CallEvent, string])[] = [
    ["guard", "nothing held", HELD, EVENTS.cleared, "decide: decide"],
    ["guard", "nothing held", HELD, EVENTS.repeated, "following: yield, none"],
    ["guard", "nothing held", HELD, EVENTS.refused, "settle: end refused, none"],
    ["guard", "nothing held", HELD, CANCELLED, "settle: end cancelled, none"],
    ["guard", "decided again", RESERVED, EVENTS.cleared, "decide: decide"],
    ["guard", "decided again", RESERVED, EVENTS.repeated, "following: yield, release"],
    ["guard", "decided again", RESERVED, EVENTS.refused, "settle: end refused, release"],
    ["guard", "asked, decided again", ASKED, EVENTS.repeated, "following: yield, release, withdraw"],
    ["guard", "asked, decided again", ASKED, EVENTS.refused, "settle: end refused, release, withdraw"],
    ["guard", "people said yes", RESUMED, EVENTS.cleared, "decide: decide"],
    ["guard", "people said yes", RESUMED, EVENTS.refused, "settle: end refused, release"],
    ["guard", "people said yes", RESUMED, CANCELLED, "settle: end cancelled, release"],
    ["decide", "nothing held", HELD, EVENTS.decided, "permit: hold"],
    ["decide", "nothing held", HELD, { kind: "decided", decision: ASK }, "reserve: reserve"],
    ["decide", "nothing held", HELD, { kind: "decided", decision: DENY }, "settle: end refused, none"],
    ["decide", "nothing held", HELD, EVENTS.refused, "settle: end refused, none"],
    ["decide", "decided again", RESERVED, EVENTS.decided, "permit: hold"],
    ["decide", "decided again", RESERVED, { kind: "decided", decision: DENY }, "settle: end refused, release"],
    ["decide", "decided again", RESERVED, EVENTS.refused, "settle: end refused, release"],
    ["decide", "people said yes", RESUMED, EVENTS.decided, "permit: admit"],
    ["decide", "people said yes", RESUMED, { kind: "decided", decision: ASK }, "permit: admit"],
    ["decide", "people said yes", RESUMED, { kind: "decided", decision: DENY }, "settle: end refused, release"],
    ["decide", "people said yes", RESUMED, EVENTS.refused, "settle: end refused, release"],
    ["decide", "may have run", RERUN, { kind: "decided", decision: DENY }, "parked: end outcome_unknown, charge"],
    ["reserve", "to be asked", { ...RESERVED, decision: ASK }, EVENTS.reserved, "approve: park"],
    // No answer is no proof that nothing is held.
    ["reserve", "to be asked", { ...RESERVED, decision: ASK }, EVENTS.refused, "settle: end refused, release"],
    ["reserve", "to be asked", { ...RESERVED, decision: ASK }, CANCELLED, "settle: end cancelled, release"],
    ["approve", "asked", ASKED, EVENTS.parked, "parked: none"],
    ["approve", "asked", ASKED, EVENTS.outdated, "guard: guard"],
    ["approve", "asked", ASKED, EVENTS.repeated, "following: yield, release, withdraw"],
    ["approve", "asked", ASKED, EVENTS.taken, "following: yield, none"],
    ["approve", "asked", ASKED, EVENTS.refused, "settle: end refused, release, withdraw"],
    ["approve", "asked", ASKED, CANCELLED, "settle: end cancelled, release, withdraw"],
    ["permit", "reserved", RESERVED, EVENTS.admitted, "run: run"],
    ["permit", "reserved", RESERVED, EVENTS.outdated, "guard: guard"],
    ["permit", "reserved", RESERVED, EVENTS.repeated, "following: yield, release"],
    ["permit", "reserved", RESERVED, EVENTS.taken, "following: yield, none"],
    ["permit", "reserved", RESERVED, EVENTS.refused, "settle: end refused, release"],
    ["permit", "reserved", RESERVED, CANCELLED, "settle: end cancelled, release"],
    ["permit", "may have run", RERUN, EVENTS.refused, "parked: end outcome_unknown, charge"],
    ["permit", "may have run", RERUN, CANCELLED, "parked: end outcome_unknown, charge"],
    ["run", "reserved", RESERVED, EVENTS.ran, "filter: filter"],
    ["run", "reserved", RESERVED, EVENTS.stopped, "settle: end cancelled, charge"],
    ["run", "reserved", RESERVED, EVENTS.lost, "settle: end outcome_unknown, charge"],
    ["run", "reserved", RESERVED, EVENTS.refused, "settle: end refused, release"],
    ["run", "reserved", RESERVED, CANCELLED, "settle: end cancelled, release"],
    ["run", "may have run", RERUN, EVENTS.refused, "parked: end outcome_unknown, charge"],
    ["run", "asked before", ASKED, EVENTS.lost, "settle: end outcome_unknown, charge, withdraw"],
    ["filter", "ran", RESERVED, EVENTS.filtered, "settle: end succeeded, charge"],
    ["filter", "ran", RESERVED, EVENTS.refused, "settle: end outcome_unknown, charge"],
    ["settle", "ran", RESERVED, EVENTS.ended, "ended: none"],
    ["settle", "not ran", RESERVED, EVENTS.taken, "following: yield, none"],
  ];

  test.each(table)("%s, %s: %#", (stage, _, held, event, want) => {
    expect(show(advance(at(stage, held), event))).toBe(want);
  });

  test("the table has every pair of a stage and what may come of it, and every other pair is a fault", () => {
    const rows = new Set(table.map(([stage, , , { kind }]) => `${stage} ${kind}`));
    for (const stage of STAGES) {
      for (const event of Object.values(EVENTS)) {
        const may = MAY_FOLLOW[stage].includes(event.kind);
        expect(rows.has(`${stage} ${event.kind}`), `${stage} ${event.kind}`).toBe(may);
        if (!may) expect(() => advance(at(stage, RESERVED), event)).toThrow(`cannot go on by ${event.kind}`);
      }
    }
  });

  test.each<CallProgress>([
    { kind: "parked" },
    { kind: "following", callId: "first" },
    { kind: "ended", outcome: { kind: "cancelled", reason: "enough" } },
  ])("a call that is $kind cannot go on", (state) => {
    for (const event of Object.values(EVENTS)) expect(() => advance(state, event)).toThrow(`is ${state.kind}`);
  });

  test.each(["reserved", "admitted"] as const)("%s without a decision is a fault", (kind) => {
    const stage = kind === "reserved" ? "reserve" : "permit";
    expect(() => advance(at(stage, HELD), EVENTS[kind])).toThrow("without a decision");
  });
});

describe("how a run ends its call", () => {
  test.each<[string, Partial<RunResult>, string]>([
    ["a good exit", {}, "succeeded"],
    ["an exit code", { exitCode: 3 }, "failed"],
    ["an exception", { error: "boom" }, "failed"],
    ["its wall clock", { end: "timeout" }, "failed"],
    ["its CPU allowance", { end: "cpu" }, "failed"],
    ["its memory", { end: "oom" }, "failed"],
    ["a sandbox that died", { end: "lost" }, "failed"],
    ["a kill", { end: "killed" }, "cancelled"],
  ])("%s", (_, change, kind) => {
    const result = resultOf(change);
    const { command } = advance(at("filter", RESERVED), { kind: "filtered", result });
    expect(command).toMatchObject({ kind: "end", outcome: { kind, result }, undo: { hold: "charge" } });
  });
});

test("a denial carries policy's reasons, rules and revision", () => {
  const decision = { ...DENY, reasons: ["Not for you.", "Not today."], matchedRules: ["a:1", "b:2"] };
  const { command } = advance(at("decide", HELD), { kind: "decided", decision });
  expect(command).toMatchObject({
    decision,
    outcome: {
      refusal: {
        stage: "decide",
        code: "PERMISSION_DENIED",
        reason: "POLICY_DENIED",
        message: "Not for you. Not today.",
        metadata: { rules: "a:1, b:2", revision: DENY.revision },
      },
    },
  });
});

test("a denial without a reason says that no rule allows it", () => {
  const { command } = advance(at("decide", HELD), { kind: "decided", decision: { ...DENY, reasons: [] } });
  expect(command).toMatchObject({ outcome: { refusal: { message: "No rule allows it." } } });
});

test("the same call is the same tool with the same arguments", () => {
  const call = callOf();
  expect(signatureOf(callOf({ callId: "other", idempotencyKey: "k" }))).toBe(signatureOf(call));
  expect(signatureOf(callOf({ tool: "orders.refund" }))).not.toBe(signatureOf(call));
  expect(signatureOf(callOf({ argumentsJson: "{}" }))).not.toBe(signatureOf(call));
});

describe("any walk", () => {
  const decision = fc.constantFrom(ALLOW, ASK, DENY);
  const result = fc
    .constantFrom<Partial<RunResult>>({}, { exitCode: 1 }, { end: "killed" }, { end: "oom" })
    .map(resultOf);
  const starts = { begin, resume, rerun: () => rerun(ALLOW) } as const;
  const choices = fc.array(fc.record({ pick: fc.nat(), decision, result, cancelled: fc.boolean() }), {
    minLength: 1,
    maxLength: 60,
  });

  test("runs only what was decided, held and admitted, ends once, and undoes exactly what there is", () => {
    fc.assert(
      fc.property(fc.constantFrom(...(Object.keys(starts) as (keyof typeof starts)[])), choices, (start, picks) => {
        const witness = new Witness(start);
        let step = starts[start]();
        witness.sees(step.command);
        for (const choice of picks) {
          const { state } = step;
          if (state.kind !== "active") break;
          const kinds = MAY_FOLLOW[state.at];
          const event = eventOf(kinds[choice.pick % kinds.length] ?? "refused", choice);
          witness.hears(event);
          step = advance(state, event);
          witness.sees(step.command);
        }
        if (step.state.kind === "ended") expect(witness.ends).toBe(1);
      }),
      { numRuns: 5_000 },
    );
  });
});

type Choice = { readonly decision: typeof ALLOW; readonly result: RunResult; readonly cancelled: boolean };

function eventOf(kind: CallEvent["kind"], { decision, result, cancelled }: Choice): CallEvent {
  switch (kind) {
    case "decided":
      return { kind, decision };
    case "ran":
    case "filtered":
      return { kind, result };
    case "refused":
      return cancelled ? CANCELLED : EVENTS.refused;
    default:
      return EVENTS[kind];
  }
}

/** Knows of a walk what the world would know, without looking at what `advance` keeps. */
class Witness {
  ends = 0;
  #decision: string | undefined;
  #held: boolean;
  #mayBeHeld: boolean;
  #saidYes: boolean;
  #mayBeAsked = false;
  #admitted = false;
  #ran: boolean;
  #last: CallCommand["kind"] | undefined;

  constructor(start: "begin" | "resume" | "rerun") {
    this.#held = start !== "begin";
    this.#mayBeHeld = this.#held;
    this.#saidYes = start !== "begin";
    this.#ran = start === "rerun";
    if (start === "rerun") this.#decision = "allow";
  }

  hears(event: CallEvent): void {
    if (event.kind === "decided") this.#decision = event.decision.kind;
    if (event.kind === "reserved") this.#held = true;
    if (event.kind === "admitted") {
      this.#admitted = true;
      if (this.#last === "hold") this.#held = true;
    }
    if (event.kind === "ran" || event.kind === "stopped" || event.kind === "lost") this.#ran = true;
  }

  sees(command: CallCommand): void {
    // After an end that another's came before there is only letting go.
    const over = command.kind === "none" || (command.kind === "yield" && command.undo.hold === "none");
    if (!over) expect(this.ends, `${command.kind} after the end`).toBe(0);
    switch (command.kind) {
      case "reserve":
        expect(this.#decision).toBe("require_approval");
        this.#mayBeHeld = true;
        break;
      case "hold":
        expect(this.#decision).toBe("allow");
        this.#mayBeHeld = true;
        break;
      case "park":
        expect([this.#decision, this.#held]).toEqual(["require_approval", true]);
        this.#mayBeAsked = true;
        break;
      case "admit":
        expect(this.#held).toBe(true);
        expect(this.#decision === "allow" || (this.#decision === "require_approval" && this.#saidYes)).toBe(true);
        break;
      case "run":
        expect([this.#admitted, this.#held]).toEqual([true, true]);
        expect(["admit", "hold"]).toContain(this.#last);
        break;
      case "end":
        this.ends++;
        expect(command.undo).toEqual({
          hold: this.#ran ? "charge" : this.#mayBeHeld ? "release" : "none",
          withdrawApproval:
            this.#ran && command.outcome.kind === "outcome_unknown" ? expect.any(Boolean) : this.#mayBeAsked,
        });
        if (this.#ran) expect(command.outcome.kind).not.toBe("refused");
        else expect(["refused", "cancelled"]).toContain(command.outcome.kind);
        break;
      case "yield":
        if (command.undo.hold !== "none") expect([this.#ran, command.undo.hold]).toEqual([false, "release"]);
        break;
      case "guard":
      case "decide":
      case "filter":
      case "none":
        break;
    }
    this.#last = command.kind;
  }
}

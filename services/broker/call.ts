import type { Decision, Outcome, Refusal, RunResult, Stage } from "./model.ts";

/**
 * The life of a call, whole: which stage follows which, every early exit, and what each exit undoes.
 *
 *     guard ─> decide ─┬─> reserve and admit, at once ────────────┬─> run ─> filter ─> end
 *                      └─> reserve ─> park ─ people ─> guard, decide again ─> admit ─^
 *
 * Hold and admission are asked for at once, so that both are durable for the price of one. Only a call that has both
 * runs; one that was admitted and not held ends as refused, and leaves no more of itself than one that never was.
 *
 * Before it, the request was authenticated and resolved; nothing is held for a request that is not. Pure: the shell
 * (pipeline.ts) performs each command and feeds back what came of it.
 */

export type CallProgress =
  | { readonly kind: "active"; readonly at: Stage; readonly held: Held }
  /** People are asked. It holds no thread: whoever learns their answer goes on from here. */
  | { readonly kind: "parked" }
  /** It is another request's call, found by its idempotency key: this one only follows it. */
  | { readonly kind: "following"; readonly callId: string }
  | { readonly kind: "ended"; readonly outcome: Outcome };

/** What an exit has to undo or carry along. */
export type Held = {
  readonly decision: Decision | undefined;
  /** A hold in the ledger may exist. */
  readonly reserved: boolean;
  /** People said yes to exactly this call. */
  readonly approved: boolean;
  /** A request to people may exist. */
  readonly asked: boolean;
  /** An earlier attempt was lost: it may have done its work. */
  readonly mayHaveRun: boolean;
};

export type CallCommand =
  | { readonly kind: "guard" }
  | { readonly kind: "decide" }
  | { readonly kind: "reserve"; readonly decision: Decision }
  /** Reserve and admit, both at once. */
  | { readonly kind: "hold"; readonly decision: Decision }
  | { readonly kind: "park"; readonly decision: Decision }
  | { readonly kind: "admit"; readonly decision: Decision }
  | { readonly kind: "run"; readonly decision: Decision }
  | { readonly kind: "filter"; readonly result: RunResult }
  | { readonly kind: "end"; readonly outcome: Outcome; readonly undo: Undo; readonly decision: Decision | undefined }
  /** Gives back what was held and leaves the call to whoever owns it. */
  | { readonly kind: "yield"; readonly undo: Undo }
  | { readonly kind: "none" };

/** `charge` ends the hold with what was used, `release` without. */
export type Undo = { readonly hold: "charge" | "release" | "none"; readonly withdrawApproval: boolean };

export type CallEvent =
  | { readonly kind: "cleared" }
  | { readonly kind: "decided"; readonly decision: Decision }
  | { readonly kind: "reserved" }
  | { readonly kind: "parked" }
  | { readonly kind: "admitted" }
  /** The session moved on between the decision and its record: decide again. */
  | { readonly kind: "outdated" }
  /** The idempotency key belongs to an earlier call, with the same tool and arguments. */
  | { readonly kind: "repeated"; readonly callId: string }
  /** Somebody else took this call over; it is theirs. */
  | { readonly kind: "taken" }
  | { readonly kind: "ran"; readonly result: RunResult }
  | { readonly kind: "filtered"; readonly result: RunResult }
  /** It was cancelled while it ran: its sandbox is killed, and what it had done by then stays done. */
  | { readonly kind: "stopped"; readonly reason: string }
  /** The run was started and its end was lost. */
  | { readonly kind: "lost"; readonly message: string }
  /** The command was refused or could not be performed. Nothing ran. */
  | { readonly kind: "refused"; readonly refusal: Refusal }
  | { readonly kind: "ended"; readonly outcome: Outcome };

export type Step = { readonly state: CallProgress; readonly command: CallCommand };

const NOTHING_HELD: Held = { decision: undefined, reserved: false, approved: false, asked: false, mayHaveRun: false };

/** Of a call whose end is told from outside its stages. */
export const ENDING: CallProgress = {
  kind: "active",
  at: "settle",
  held: { decision: undefined, reserved: false, approved: false, asked: false, mayHaveRun: false },
};

/** A new call, resolved. */
export function begin(): Step {
  return { state: { kind: "active", at: "guard", held: NOTHING_HELD }, command: { kind: "guard" } };
}

/** A parked call that people allowed. A kill switch or a new rule wins over an old yes, so both are asked again. */
export function resume(): Step {
  const held: Held = { ...NOTHING_HELD, reserved: true, approved: true };
  return { state: { kind: "active", at: "guard", held }, command: { kind: "guard" } };
}

/** A parked call that people did not allow, or that was withdrawn while it waited. */
export function endParked(outcome: Outcome, decision: Decision | undefined, withdrawApproval: boolean): Step {
  return {
    state: { kind: "parked" },
    command: { kind: "end", outcome, undo: { hold: "release", withdrawApproval }, decision },
  };
}

/**
 * A call marked idempotent whose run was lost with its broker: once more, under the decision it was admitted by. Its hold
 * is asked for again, for its broker may have been lost before it had one.
 */
export function rerun(decision: Decision): Step {
  const held: Held = { decision, reserved: true, approved: true, asked: false, mayHaveRun: true };
  return active("permit", held, { kind: "hold", decision });
}

/** A call that was admitted and whose end nobody knows. It is charged as estimated: it may have run. */
export function endLost(decision: Decision | undefined): Step {
  const message =
    "The call was started and the broker that ran it is gone; whether the tool did its work is not known.";
  const outcome: Outcome = { kind: "outcome_unknown", message };
  const undo: Undo = { hold: "charge", withdrawApproval: false };
  return { state: { kind: "parked" }, command: { kind: "end", outcome, undo, decision } };
}

/** @throws Error when the event cannot follow the state: a fault of the shell. */
export function advance(state: CallProgress, event: CallEvent): Step {
  if (state.kind !== "active") throw new Error(`a call that is ${state.kind} cannot go on by ${event.kind}`);
  const { held } = state;
  if (!(FOLLOWS[state.at] ?? []).includes(event.kind)) {
    throw new Error(`a call at ${state.at} cannot go on by ${event.kind}`);
  }
  switch (event.kind) {
    case "ended":
      return { state: { kind: "ended", outcome: event.outcome }, command: { kind: "none" } };
    case "cleared":
      return active("decide", held, { kind: "decide" });
    case "decided":
      return afterDecision(event.decision, { ...held, decision: event.decision });
    case "reserved":
      return active("approve", { ...held, asked: true }, { kind: "park", decision: withDecision(held, event) });
    case "parked":
      return { state: { kind: "parked" }, command: { kind: "none" } };
    case "admitted":
      return active("run", held, { kind: "run", decision: withDecision(held, event) });
    case "outdated":
      return active("guard", held, { kind: "guard" });
    case "repeated":
      return { state: { kind: "following", callId: event.callId }, command: { kind: "yield", undo: undoOf(held) } };
    case "taken":
      return { state: { kind: "following", callId: "" }, command: { kind: "yield", undo: NO_UNDO } };
    case "ran":
      return active("filter", held, { kind: "filter", result: event.result });
    case "filtered":
      return end(outcomeOf(event.result), held, "charge");
    case "stopped":
      return end({ kind: "cancelled", reason: event.reason }, held, "charge");
    case "lost":
      return end({ kind: "outcome_unknown", message: event.message }, held, "charge");
    case "refused":
      if (held.mayHaveRun) return endLost(held.decision);
      if (state.at === "filter") return end({ kind: "outcome_unknown", message: WITHHELD }, held, "charge");
      return end(outcomeOfRefusal(event.refusal), held, undoOf(held).hold);
  }
}

/** What may come of each stage's command. */
const FOLLOWS: Partial<Record<Stage, readonly CallEvent["kind"][]>> = {
  guard: ["cleared", "repeated", "refused"],
  decide: ["decided", "refused"],
  reserve: ["reserved", "refused"],
  approve: ["parked", "outdated", "repeated", "taken", "refused"],
  permit: ["admitted", "outdated", "repeated", "taken", "refused"],
  run: ["ran", "stopped", "lost", "refused"],
  filter: ["filtered", "refused"],
  settle: ["ended", "taken"],
};

const WITHHELD =
  "The tool ran, and its result could not be searched for secrets, so it is withheld. Do not send it again.";

function afterDecision(decision: Decision, held: Held): Step {
  switch (decision.kind) {
    case "deny":
      if (held.mayHaveRun) return endLost(decision);
      return end({ kind: "refused", refusal: denial(decision) }, held, undoOf(held).hold);
    case "require_approval":
    case "allow": {
      // What people said yes to holds its money already; it was taken before they were asked.
      if (held.approved) return active("permit", held, { kind: "admit", decision });
      // From here on a hold may exist: no answer is no proof that it does not, and to release it twice is harmless.
      const holding = { ...held, reserved: true };
      if (decision.kind === "allow") return active("permit", holding, { kind: "hold", decision });
      return active("reserve", holding, { kind: "reserve", decision });
    }
  }
}

/** How a run that came to its end ends the call. */
function outcomeOf(result: RunResult): Outcome {
  if (result.end === "killed") return { kind: "cancelled", reason: "Its sandbox was killed.", result };
  const good = result.end === "exited" && result.exitCode === 0 && result.error === "";
  return { kind: good ? "succeeded" : "failed", result };
}

/** Who gave up before anything ran was not refused. */
function outcomeOfRefusal(refusal: Refusal): Outcome {
  return refusal.code === "CANCELLED" ? { kind: "cancelled", reason: refusal.message } : { kind: "refused", refusal };
}

function denial(decision: Decision): Refusal {
  const why = decision.reasons.length > 0 ? decision.reasons.join(" ") : "No rule allows it.";
  return {
    stage: "decide",
    code: "PERMISSION_DENIED",
    reason: "POLICY_DENIED",
    message: why,
    metadata: { rules: decision.matchedRules.join(", "), revision: decision.revision },
  };
}

const NO_UNDO: Undo = { hold: "none", withdrawApproval: false };

function undoOf(held: Held): Undo {
  return { hold: held.reserved && !held.mayHaveRun ? "release" : "none", withdrawApproval: held.asked };
}

function end(outcome: Outcome, held: Held, hold: Undo["hold"]): Step {
  const undo: Undo = { hold, withdrawApproval: held.asked };
  return active("settle", held, { kind: "end", outcome, undo, decision: held.decision });
}

function active(at: Stage, held: Held, command: CallCommand): Step {
  return { state: { kind: "active", at, held }, command };
}

function withDecision(held: Held, event: CallEvent): Decision {
  if (held.decision === undefined) throw new Error(`a call without a decision cannot go on by ${event.kind}`);
  return held.decision;
}

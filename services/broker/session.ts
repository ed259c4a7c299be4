import type { Decided, Decider } from "../shared/decider.ts";
import { CLEAR, judgeLoop, type LoopLevel, type LoopLimits, type LoopVerdict } from "./guard/loops.ts";
import { argue, hear, type Known, nothingKnown, see } from "./guard/provenance.ts";
import { countCall, NO_REPEATS, type RepeatWindow, uncountCall } from "./guard/repeats.ts";
import { plainSignature, type Signature } from "./guard/signature.ts";
import { countEnd, countOpen, type Ending, type LoopWindow, uncount } from "./guard/window.ts";
import type { Amount, Call, CallSummary, Decision, Outcome, RunResult, SignedText } from "./model.ts";

/**
 * One agent run: its calls, its labels and its loop window. Stream `session.<tenant>.<session>`.
 *
 * S1. A call is admitted at most once, ends at most once, and never runs after its end.
 * S2. An idempotency key belongs to one call. A call that was refused before anything was held does not keep its key:
 *     nothing happened that a second try could repeat.
 * S3. What a call was decided on (labels, loop verdict) is what the session holds when the call is recorded.
 * S4. The session belongs to the agent that used it first.
 */

export type SessionState = {
  /** Empty until the first call. */
  agent: string;
  /** Records so far: the last one's seq. */
  seq: number;
  labels: readonly string[];
  /** What its calls were charged, by unit. */
  spent: Readonly<Record<string, number>>;
  repeats: RepeatWindow;
  window: LoopWindow;
  known: Known;
  /** The last of them, in the order they were first recorded. */
  readonly calls: Map<string, Entry>;
  /** callId by idempotency key. */
  readonly keys: Map<string, string>;
};

export type Entry = {
  readonly kind: "parked" | "admitted" | "ended";
  readonly tool: string;
  readonly argumentsHash: string;
  readonly idempotencyKey: string;
  /** Which attempt was admitted. */
  readonly attempt: string;
  /** Somebody has asked for its end. */
  readonly cancelling?: boolean;
  /** Where the record is that tells most about it. */
  readonly seq: number;
  /** Where its arguments are. */
  readonly startSeq: number;
};

/** Of ended calls, so many are known by id and key; older ones are in the journal only. */
export const KEEP_CALLS = 10_000;

/** What a call was decided on. */
export type Basis = { readonly labels: readonly string[]; readonly loop: LoopLevel; readonly limits: LoopLimits };

type Begun = {
  readonly call: Call;
  readonly decision: Decision;
  readonly price: readonly Amount[];
  readonly basis: Basis;
};
type Ended = {
  readonly call: CallSummary;
  readonly decision: Decision | undefined;
  readonly outcome: Outcome;
  readonly charged: readonly Amount[];
  readonly receipt: SignedText | undefined;
  readonly endMs: number;
  /** What the run came to, in short; absent where nothing ran. */
  readonly result?: { readonly key: string; readonly failed: boolean };
  /** What the guard tells the agent. */
  readonly warnings?: readonly string[];
};

export type SessionCommand =
  /** `expiresMs`: when the question to people ends. */
  | ({ readonly kind: "park"; readonly expiresMs: number } & Begun)
  /** `deadlineMs`: when it must have ended, or its end is lost. `attempt` names who runs it. */
  | ({
      readonly kind: "admit";
      readonly attempt: string;
      readonly deadlineMs: number;
      /** The attempt that was lost and that this one replaces. */
      readonly replaces?: string;
    } & Begun)
  /** `attempts`: those whose end it tells. What another one has been admitted to is not ended by it. */
  | ({ readonly kind: "end"; readonly attempts: readonly string[]; readonly addLabels: readonly string[] } & Ended)
  /** Asks whoever runs the call to end it. */
  | { readonly kind: "cancel"; readonly callId: string; readonly reason: string };

export type SessionEvent =
  | ({ readonly kind: "parked"; readonly callId: string; readonly expiresMs: number } & Omit<Begun, "basis">)
  | ({
      readonly kind: "admitted";
      readonly callId: string;
      readonly attempt: string;
      readonly deadlineMs: number;
    } & Omit<Begun, "basis">)
  /** `labels`: all that the session has touched now. */
  | ({ readonly kind: "ended"; readonly callId: string; readonly labels: readonly string[] } & Ended)
  | { readonly kind: "cancelling"; readonly callId: string; readonly reason: string };

export type SessionRefusal =
  | { readonly kind: "foreign_session" }
  | { readonly kind: "repeated_key"; readonly callId: string }
  | { readonly kind: "key_mismatch"; readonly callId: string }
  | { readonly kind: "outdated" }
  | { readonly kind: "unknown_call" }
  /** Somebody else has admitted or ended it. */
  | { readonly kind: "taken" };

export const sessionDecider: Decider<SessionState, SessionCommand, SessionEvent, SessionRefusal> = {
  initial: () => ({
    ...{ agent: "", seq: 0, labels: [], spent: {}, repeats: NO_REPEATS, window: [], known: nothingKnown() },
    ...{ calls: new Map(), keys: new Map() },
  }),
  decide,
  evolve,
  eventToJson: (event) => event,
  eventFromJson: (json) => json as SessionEvent,
  stateToJson: (state) => ({
    ...state,
    calls: [...state.calls],
    keys: [...state.keys],
    known: { ...state.known, tokens: [...state.known.tokens] },
  }),
  stateFromJson: (json) => {
    const state = json as Omit<SessionState, "calls" | "keys" | "known"> & {
      calls: [string, Entry][];
      keys: [string, string][];
      known?: Omit<Known, "tokens"> & { tokens: [string, string][] };
    };
    // A snapshot of before these were counted begins at nothing.
    const { spent = {}, window = [] } = state;
    const known = state.known === undefined ? nothingKnown() : { ...state.known, tokens: new Map(state.known.tokens) };
    return { ...state, spent, window, known, calls: new Map(state.calls), keys: new Map(state.keys) };
  },
};

/** What a new call of this session is decided on. */
export type Glance = {
  readonly foreign: boolean;
  readonly labels: readonly string[];
  readonly loop: LoopVerdict;
  readonly spent: Readonly<Record<string, number>>;
  /** The call that its idempotency key belongs to. */
  readonly earlier: { readonly callId: string; readonly same: boolean } | undefined;
};

export function glance(state: SessionState, call: Call, limits: LoopLimits): Glance {
  const callId = call.idempotencyKey === "" ? undefined : state.keys.get(call.idempotencyKey);
  const entry = callId === undefined || callId === call.callId ? undefined : state.calls.get(callId);
  return {
    foreign: isForeign(state, call),
    labels: state.labels,
    spent: state.spent,
    loop: state.calls.has(call.callId)
      ? CLEAR
      : judgeLoop(state, { tool: call.tool, signature: signatureOf(call) }, limits),
    earlier: callId === undefined || entry === undefined ? undefined : { callId, same: isSame(entry, call) },
  };
}

type Verdict = Decided<SessionEvent, SessionRefusal>;

function decide(state: SessionState, command: SessionCommand): Verdict {
  switch (command.kind) {
    case "park":
      return decidePark(state, command);
    case "admit":
      return decideAdmit(state, command);
    case "end": {
      const { kind: _, attempts, addLabels, ...ended } = command;
      const labels = [...new Set([...state.labels, ...addLabels])].toSorted(byText);
      if (isForeign(state, command.call)) return refuse({ kind: "foreign_session" });
      const { callId } = command.call;
      const entry = state.calls.get(callId);
      if (entry?.kind === "ended") return accept();
      if (entry?.kind === "admitted" && !attempts.includes(entry.attempt)) return refuse({ kind: "taken" });
      return accept({ kind: "ended", callId, ...ended, labels });
    }
    case "cancel": {
      const { callId, reason } = command;
      const entry = state.calls.get(callId);
      if (entry === undefined) return refuse({ kind: "unknown_call" });
      if (entry.kind === "ended") return refuse({ kind: "taken" });
      return entry.cancelling === true ? accept() : accept({ kind: "cancelling", callId, reason });
    }
  }
}

function decidePark(state: SessionState, command: Extract<SessionCommand, { kind: "park" }>): Verdict {
  const { call, decision, price, expiresMs } = command;
  const { callId } = call;
  const entry = state.calls.get(callId);
  if (entry !== undefined) return entry.kind === "parked" ? accept() : refuse({ kind: "taken" });
  return refuseNew(state, command) ?? accept({ kind: "parked", callId, call, decision, price, expiresMs });
}

function decideAdmit(state: SessionState, command: Extract<SessionCommand, { kind: "admit" }>): Verdict {
  const { call, decision, price, attempt, deadlineMs } = command;
  const { callId } = call;
  const admitted: SessionEvent = { kind: "admitted", callId, call, decision, price, attempt, deadlineMs };
  const entry = state.calls.get(callId);
  switch (entry?.kind) {
    case undefined:
      return refuseNew(state, command) ?? accept(admitted);
    case "parked":
      return sameLabels(state, command.basis) ? accept(admitted) : refuse({ kind: "outdated" });
    case "admitted":
      if (entry.attempt === command.replaces) return accept(admitted);
      return entry.attempt === attempt ? accept() : refuse({ kind: "taken" });
    case "ended":
      return refuse({ kind: "taken" });
  }
}

function refuseNew(state: SessionState, { call, basis }: Pick<Begun, "call" | "basis">): Verdict | undefined {
  const seen = glance(state, call, basis.limits);
  if (seen.foreign) return refuse({ kind: "foreign_session" });
  if (seen.earlier !== undefined) {
    const { callId, same } = seen.earlier;
    return refuse({ kind: same ? "repeated_key" : "key_mismatch", callId });
  }
  return sameLabels(state, basis) && seen.loop.level === basis.loop ? undefined : refuse({ kind: "outdated" });
}

function evolve(state: SessionState, event: SessionEvent): SessionState {
  state.seq++;
  switch (event.kind) {
    case "parked":
    case "admitted": {
      const { call, callId } = event;
      const known = state.calls.get(callId);
      if (known === undefined) {
        state.agent = call.principal.agent;
        state.repeats = countCall(state.repeats, signatureOf(call).key);
        state.window = countOpen(state.window, call, signatureOf(call));
        if (call.heard !== undefined) state.known = hear(state.known, call.heard);
        argue(state.known, call.argumentsJson);
        if (call.idempotencyKey !== "") state.keys.set(call.idempotencyKey, callId);
      }
      const attempt = event.kind === "admitted" ? event.attempt : "";
      const entry = { ...entryOf(call), kind: event.kind, attempt, seq: state.seq };
      state.calls.set(callId, { ...entry, startSeq: known?.startSeq ?? state.seq });
      break;
    }
    case "ended": {
      const { call, callId, outcome } = event;
      const known = state.calls.get(callId);
      if (known === undefined) {
        state.agent = call.principal.agent;
        if (countsAsCall(outcome)) state.repeats = countCall(state.repeats, signatureOf(call).key);
        if (call.heard !== undefined) state.known = hear(state.known, call.heard);
      } else if (wasNotHeld(outcome)) {
        state.repeats = uncountCall(state.repeats, signatureOf(call).key);
        forgetKey(state, call.idempotencyKey, callId);
      }
      const ending = endingOf(event);
      state.window =
        ending === undefined ? uncount(state.window, callId) : countEnd(state.window, call, signatureOf(call), ending);
      const result = "result" in outcome ? outcome.result : undefined;
      if (result !== undefined) see(state.known, textOf(result), call.tool, signatureOf(call).untrusted);
      state.labels = event.labels;
      state.spent = withCharged(state.spent, event.charged);
      const attempt = known?.attempt ?? "";
      const startSeq = known?.startSeq ?? state.seq;
      state.calls.set(callId, { ...entryOf(call), kind: "ended", attempt, seq: state.seq, startSeq });
      forgetOldest(state);
      break;
    }
    case "cancelling": {
      const known = state.calls.get(event.callId);
      if (known !== undefined) state.calls.set(event.callId, { ...known, cancelling: true });
      break;
    }
  }
  return state;
}

/** As the loop rules count it; undefined: not at all. Policy's no is a failure of the call, a fault of ours is none. */
function endingOf({ outcome, result }: Extract<SessionEvent, { kind: "ended" }>): Ending | undefined {
  if (result !== undefined) return { kind: result.failed ? "failed" : "done", result: result.key };
  if (outcome.kind !== "refused") return { kind: "failed", result: "" };
  const { reason, stage } = outcome.refusal;
  if (LOOP_REFUSALS.includes(reason)) return { kind: "vetoed", result: "" };
  return reason === "POLICY_DENIED" || stage === "approve" ? { kind: "failed", result: reason } : undefined;
}

function textOf({ resultJson, stdout, stderr, error }: RunResult): string {
  return [resultJson, stdout, stderr, error].filter((text) => text !== "").join("\n");
}

const LOOP_REFUSALS: readonly string[] = ["LOOP_DETECTED", "SESSION_STOPPED"];

function signatureOf(call: CallSummary): Signature {
  return call.signature ?? plainSignature(call);
}

function withCharged(spent: SessionState["spent"], charged: readonly Amount[]): SessionState["spent"] {
  if (charged.length === 0) return spent;
  const sum = { ...spent };
  for (const { unit, value } of charged) sum[unit] = (sum[unit] ?? 0) + value;
  return sum;
}

/** Policy's no counts, or an agent could knock for ever; a veto on a loop and a fault do not. */
function countsAsCall(outcome: Outcome): boolean {
  return outcome.kind !== "refused" || outcome.refusal.reason === "POLICY_DENIED";
}

/** Admitted in the same breath as its hold was refused: as if it had never been. */
function wasNotHeld(outcome: Outcome): boolean {
  return outcome.kind === "refused" && outcome.refusal.stage === "reserve";
}

function forgetOldest(state: SessionState): void {
  if (state.calls.size <= KEEP_CALLS) return;
  for (const [callId, entry] of state.calls) {
    if (entry.kind !== "ended") continue;
    state.calls.delete(callId);
    forgetKey(state, entry.idempotencyKey, callId);
    return;
  }
}

function forgetKey({ keys }: SessionState, key: string, callId: string): void {
  if (keys.get(key) === callId) keys.delete(key);
}

function entryOf({
  tool,
  argumentsHash,
  idempotencyKey,
}: CallSummary): Pick<Entry, "tool" | "argumentsHash" | "idempotencyKey"> {
  return { tool, argumentsHash, idempotencyKey };
}

function isForeign(state: SessionState, call: CallSummary): boolean {
  return state.agent !== "" && state.agent !== call.principal.agent;
}

function isSame(entry: Entry, call: CallSummary): boolean {
  return entry.tool === call.tool && entry.argumentsHash === call.argumentsHash;
}

function sameLabels(state: SessionState, basis: Basis): boolean {
  return state.labels.length === basis.labels.length && state.labels.every((label, i) => label === basis.labels[i]);
}

function byText(a: string, b: string): number {
  return a < b ? -1 : Number(a > b);
}

function accept(...events: SessionEvent[]): Verdict {
  return { kind: "accepted", events };
}

function refuse(refusal: SessionRefusal): Verdict {
  return { kind: "refused", refusal };
}

import { sha256Hex } from "../shared/json.ts";
import type { LoopLimits } from "./guard/loops.ts";
import type { Call, CallSummary, Decision, Obligations, Outcome, Principal, Refusal, RunResult } from "./model.ts";

/** For tests of this room: calls, decisions and results that differ from an ordinary one in what is given. */

/** Only the rule on exact repeats. */
export const EXACT_ONLY: LoopLimits = {
  ...{ exact_repeat_limit: 3, no_progress: {}, cycle: {}, errors: {}, stale: {} },
  end_session_after: 60,
};

export const NOW_MS = Date.UTC(2026, 2, 4, 10, 30);

export const PRINCIPAL: Principal = { tenant: "demo", agent: "demo-agent", session: "s1", user: "" };

export type CallChange = Partial<Omit<Call, "principal">> & { readonly principal?: Partial<Principal> };

export function callOf({ principal, ...change }: CallChange = {}): Call {
  const argumentsJson = change.argumentsJson ?? '{"order":1}';
  return {
    callId: "call-1",
    principal: { ...PRINCIPAL, ...principal },
    tool: "orders.lookup",
    toolDigest: "d".repeat(64),
    argumentsJson,
    argumentsHash: sha256Hex(argumentsJson),
    idempotencyKey: "",
    createdMs: NOW_MS,
    ...change,
  };
}

export function summary(change: CallChange = {}): CallSummary {
  const { argumentsJson: _, ...rest } = callOf(change);
  return rest;
}

export type DecisionChange = Partial<Omit<Decision, "obligations">> & { readonly obligations?: Partial<Obligations> };

export function decisionOf({ obligations, ...change }: DecisionChange = {}): Decision {
  return {
    kind: "allow",
    reasons: ["Analysts may look up orders."],
    matchedRules: ["policy.csv:3"],
    revision: "r".repeat(64),
    obligations: {
      limits: { wallMs: 0, cpuMs: 0, memoryBytes: 0, outputBytes: 0, pids: 0 },
      approverGroup: "",
      quorum: 0,
      approvalTtlMs: 0,
      ...obligations,
    },
    ...change,
  };
}

export const ALLOW = decisionOf();
export const ASK = decisionOf({ kind: "require_approval", obligations: { approverGroup: "leads", quorum: 1 } });
export const DENY = decisionOf({ kind: "deny", reasons: ["Not for you."] });

export function resultOf(change: Partial<RunResult> = {}): RunResult {
  return {
    end: "exited",
    exitCode: 0,
    resultJson: '{"ok":true}',
    stdout: "",
    stderr: "",
    truncated: false,
    error: "",
    usage: { wallMs: 7, cpuMs: 3, peakMemoryBytes: 1024, outputBytes: 11 },
    enforcement: { kind: "builtin", isolationClass: "none", enforced: ["no-code"], missing: [] },
    ...change,
  };
}

export function refusalOf(change: Partial<Refusal> = {}): Refusal {
  return {
    stage: "decide",
    code: "UNAVAILABLE",
    reason: "PDP_UNAVAILABLE",
    message: "The policy decision point does not answer.",
    metadata: {},
    ...change,
  };
}

export const SUCCEEDED: Outcome = { kind: "succeeded", result: resultOf() };
export const REFUSED: Outcome = { kind: "refused", refusal: refusalOf() };

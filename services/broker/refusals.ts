import { RpcError } from "../shared/rpc/errors.ts";
import type { CallEvent } from "./call.ts";
import type { LoopVerdict } from "./guard/loops.ts";
import type { Call, Refusal } from "./model.ts";
import type { SessionRefusal } from "./session.ts";

/** Every refusal of the broker's own, in one place: what it is called and how to mend it. */

type GuardRefusal =
  | { readonly kind: "killed"; readonly scope: string; readonly reason: string }
  | { readonly kind: "foreign_session" }
  | { readonly kind: "key_mismatch"; readonly callId: string }
  | { readonly kind: "looping"; readonly verdict: Exclude<LoopVerdict, { level: "clear" }>; readonly limit: number }
  | { readonly kind: "approval_outdated" }
  | { readonly kind: "approval_needed"; readonly tool: string; readonly reasons: readonly string[] }
  | { readonly kind: "tool_changed"; readonly tool: string };

export function guardRefusal(why: GuardRefusal): Refusal {
  switch (why.kind) {
    case "killed": {
      const scope = why.scope.slice(why.scope.indexOf("/") + 1);
      return of("KILL_SWITCH", `An operator has stopped calls for ${scope}: ${why.reason} Wait until it is lifted.`, {
        scope,
      });
    }
    case "foreign_session":
      return of(
        "SESSION_FOREIGN",
        "This session belongs to another agent; choose another session name.",
        {},
        "session",
      );
    case "key_mismatch":
      return {
        ...of(
          "IDEMPOTENCY_KEY_REUSED",
          "This idempotency key was used for another tool or other arguments; choose a new key for a new call.",
          { first_call_id: why.callId },
          "idempotency_key",
        ),
        code: "ALREADY_EXISTS",
      };
    case "looping":
      return of(why.verdict.rule === "session" ? "SESSION_STOPPED" : "LOOP_DETECTED", why.verdict.message, {
        rule: why.verdict.rule,
        count: String(why.verdict.count),
        ...(why.verdict.rule === "repeat" ? { limit: String(why.limit) } : {}),
      });
    case "approval_outdated":
      return {
        ...of(
          "APPROVAL_OUTDATED",
          "Policy now asks for other or more people than those who said yes; send the call again.",
          {},
        ),
        stage: "decide",
      };
    case "approval_needed":
      return {
        ...of(
          "APPROVAL_NEEDED",
          `${why.tool} needs a person's yes, and a program cannot wait for one; call it by itself. ${why.reasons.join(" ")}`.trim(),
          {},
        ),
        stage: "approve",
      };
    case "tool_changed":
      return {
        ...of("TOOL_CHANGED", `${why.tool} has changed since people said yes to it; send the call again.`, {}),
        stage: "resolve",
      };
  }
}

function of(reason: string, message: string, metadata: Record<string, string>, field?: string): Refusal {
  const base: Refusal = { stage: "guard", code: "FAILED_PRECONDITION", reason, message, metadata };
  return field === undefined ? base : { ...base, field };
}

/** What the session's record answers when it does not take the call. */
export function recordRefusal(refusal: SessionRefusal, call: Call): CallEvent {
  switch (refusal.kind) {
    case "foreign_session":
      return { kind: "refused", refusal: guardRefusal({ kind: "foreign_session" }) };
    case "repeated_key":
      return { kind: "repeated", callId: refusal.callId };
    case "key_mismatch":
      return { kind: "refused", refusal: guardRefusal({ kind: "key_mismatch", callId: refusal.callId }) };
    case "outdated":
      return { kind: "outdated" };
    case "taken":
      return { kind: "taken" };
    case "unknown_call":
      throw new Error(`the session does not know its own call ${call.callId}`);
  }
}

const PASSING: readonly string[] = ["UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL", "DATA_LOSS", "ABORTED"];

/** A fault of a service we depend on becomes one error that names it; its refusals stay what they are. */
export function serviceDown(name: "pdp" | "ledger" | "approvals" | "runner", error: RpcError): RpcError {
  if (!PASSING.includes(error.code)) return error;
  return new RpcError({
    code: error.code === "DEADLINE_EXCEEDED" ? "DEADLINE_EXCEEDED" : "UNAVAILABLE",
    reason: `${name.toUpperCase()}_UNAVAILABLE`,
    message: `The ${LONG_NAMES[name]} does not answer, so the call did not run. Send it again shortly.`,
    metadata: { cause: error.reason },
    retryAfterMs: 1_000,
    cause: error,
  });
}

const LONG_NAMES = {
  pdp: "policy decision point",
  ledger: "budget ledger",
  approvals: "approval service",
  runner: "sandbox runner",
} as const;

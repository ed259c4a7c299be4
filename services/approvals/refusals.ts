import { RpcError } from "../shared/rpc/errors.ts";
import type { Ending } from "./approval.ts";
import type { Refusal } from "./commands.ts";
import { MAX_LIFETIME_MS } from "./decider.ts";

/** What the decider refuses, in words for the person or program that asked. */
export function toRpcError(refusal: Refusal): RpcError {
  switch (refusal.kind) {
    case "not found":
      return new RpcError({
        code: "NOT_FOUND",
        reason: "APPROVAL_NOT_FOUND",
        field: "approval_id",
        message: "There is no such approval here. Check the id; one that ended long ago is only in the journal.",
      });
    case "mismatch": {
      const field = refusal.field.replaceAll(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
      return new RpcError({
        code: "ALREADY_EXISTS",
        reason: "APPROVAL_MISMATCH",
        field: `approval.${field}`,
        message: `Approval ${refusal.approvalId} exists with another ${field}; take a new id for another request.`,
      });
    }
    case "expiry past":
      return expiryInvalid("it is over already; choose a time in the future");
    case "expiry too far":
      return expiryInvalid(`it is too far away; choose a time within ${MAX_LIFETIME_MS / 86_400_000} days`);
    case "too many pending":
      return new RpcError({
        code: "RESOURCE_EXHAUSTED",
        reason: "TOO_MANY_PENDING",
        message: "Too many approvals of this tenant wait already; ask again once some are answered.",
        retryAfterMs: 60_000,
      });
    case "grant invalid":
      return invalid("grant", refusal.why);
    case "absence invalid":
      return invalid("until", refusal.why);
    case "too many questions":
      return new RpcError({
        code: "RESOURCE_EXHAUSTED",
        reason: "TOO_MANY_QUESTIONS",
        message: "Enough has been asked about this one; please approve or reject it.",
      });
    case "question not found":
      return notFound("question_id", "There is no such question about this approval; send an id as it was shown.");
    case "grant not found":
      return notFound("grant_id", "There is no such grant here; list the grants to see those there are.");
    case "replayed":
      return new RpcError({
        code: "ALREADY_EXISTS",
        reason: "REPLAYED",
        message: "This was used before, and it counts once. Please begin anew.",
      });
    case "told already":
      return new RpcError({ code: "ABORTED", reason: "TOLD_ALREADY", message: "Another replica has told it." });
    case "self approval":
    case "not eligible":
    case "already decided":
    case "overdue":
    case "arguments changed":
    case "calls joined":
    case "already voted":
      return answerRefused(refusal);
  }
}

type AnswerRefusal = Extract<
  Refusal,
  {
    kind:
      | "self approval"
      | "not eligible"
      | "already decided"
      | "overdue"
      | "arguments changed"
      | "calls joined"
      | "already voted";
  }
>;

/** Why a person's answer does not count. */
function answerRefused(refusal: AnswerRefusal): RpcError {
  switch (refusal.kind) {
    case "self approval":
      return new RpcError({
        code: "PERMISSION_DENIED",
        reason: "SELF_APPROVAL",
        message: `This call is made ${refusal.as === "user" ? "for you" : "by you"}, so somebody else has to answer it. Please ask another reviewer.`,
      });
    case "not eligible":
      return new RpcError({
        code: "PERMISSION_DENIED",
        reason: "NOT_ELIGIBLE",
        message: `Only members of ${refusal.groups.join(" or ")} answer this one, and you are not among them. Please ask one of them.`,
        metadata: { approver_group: refusal.groups.join(",") },
      });
    case "already decided": {
      const { end, by } = refusal.ending;
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: DECIDED_REASONS[end],
        message: `This is decided already: ${endingText(refusal.ending)}. Your answer changes nothing.`,
        metadata: { state: end.toUpperCase(), by: by.join(",") },
      });
    }
    case "overdue":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "APPROVAL_EXPIRED",
        message: `This is decided already: its time was over at ${iso(refusal.expiresAtMs)}, which counts as a no. Your answer changes nothing.`,
        metadata: { state: "EXPIRED", by: "" },
      });
    case "arguments changed":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "ARGS_MISMATCH",
        field: "arguments_hash",
        message: "What you saw is not what the call would run with. Please look at the approval again, then answer.",
      });
    case "calls joined":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "CALLS_JOINED",
        field: "calls",
        message: `Your yes would now count for ${refusal.calls} identical calls, which is not what you saw. Please look at the approval again, then answer.`,
        metadata: { calls: String(refusal.calls) },
      });
    case "already voted":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "ALREADY_VOTED",
        message: `You ${refusal.vote.approve ? "approved" : "rejected"} this at ${iso(refusal.vote.timeMs)}, and everybody has one vote. If you have changed your mind, ask another reviewer to reject it.`,
      });
  }
}

function endingText({ end, by, timeMs }: Ending): string {
  const at = iso(timeMs);
  switch (end) {
    case "approved":
      return `${by.join(" and ")} approved this at ${at}, and a yes counts once`;
    case "rejected":
      return `${by.join(" and ")} rejected this at ${at}`;
    case "expired":
      return `this expired at ${at} without enough answers, which counts as a no`;
    case "cancelled":
      return `${by.join(" and ")} withdrew this at ${at}, because its call will not run`;
  }
}

const DECIDED_REASONS = {
  approved: "APPROVAL_CONSUMED",
  rejected: "APPROVAL_REJECTED",
  expired: "APPROVAL_EXPIRED",
  cancelled: "APPROVAL_CANCELLED",
} as const;

function expiryInvalid(what: string): RpcError {
  const field = "approval.expire_time";
  return new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "EXPIRY_INVALID",
    field,
    message: `Change ${field}: ${what}.`,
  });
}

function invalid(field: string, what: string): RpcError {
  return new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "FIELD_INVALID",
    field,
    message: `Change ${field}: ${what}.`,
  });
}

function notFound(field: string, message: string): RpcError {
  return new RpcError({
    code: "NOT_FOUND",
    reason: `${field.replace(/_id$/, "").toUpperCase()}_NOT_FOUND`,
    field,
    message,
  });
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

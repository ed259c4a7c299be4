import { RpcError } from "../shared/rpc/errors.ts";
import type { Ending } from "./approval.ts";
import { MAX_LIFETIME_MS, type Refusal } from "./decider.ts";

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
    case "self approval":
      return new RpcError({
        code: "PERMISSION_DENIED",
        reason: "SELF_APPROVAL",
        message: `This call is made ${refusal.as === "user" ? "for you" : "by you"}, so somebody else has to answer it. Please ask another reviewer.`,
      });
    case "not an approver":
      return new RpcError({
        code: "PERMISSION_DENIED",
        reason: "NOT_AN_APPROVER",
        message: `Only members of ${refusal.group} answer this one, and you are not among them. Please ask one of them.`,
        metadata: { approver_group: refusal.group },
      });
    case "already decided":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "ALREADY_DECIDED",
        message: `This is decided already: ${endingText(refusal.ending)}. Your answer changes nothing.`,
        metadata: { state: refusal.ending.end.toUpperCase(), by: refusal.ending.by.join(",") },
      });
    case "overdue":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "ALREADY_DECIDED",
        message: `This is decided already: its time was over at ${iso(refusal.expiresAtMs)}, which counts as a no. Your answer changes nothing.`,
        metadata: { state: "EXPIRED", by: "" },
      });
    case "arguments changed":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "ARGUMENTS_CHANGED",
        field: "arguments_hash",
        message: "What you saw is not what the call would run with. Please look at the approval again, then answer.",
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
      return `${by.join(" and ")} approved this at ${at}`;
    case "rejected":
      return `${by.join(" and ")} rejected this at ${at}`;
    case "expired":
      return `this expired at ${at} without enough answers, which counts as a no`;
    case "cancelled":
      return `${by.join(" and ")} withdrew this at ${at}, because its call will not run`;
  }
}

function expiryInvalid(what: string): RpcError {
  const field = "approval.expire_time";
  return new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "EXPIRY_INVALID",
    field,
    message: `Change ${field}: ${what}.`,
  });
}

function iso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

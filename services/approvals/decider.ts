import type { Decided, Decider } from "../shared/decider.ts";
import type { Approval, Binding, End, Ending, Event, NewApproval, Vote } from "./approval.ts";
import { eventFromJson, eventToJson, stateFromJson, stateToJson } from "./codec.ts";
import { addApproval, findApproval, initial, type State, textOf } from "./state.ts";

/**
 * The approvals of one tenant.
 *
 * Invariants, held by decide and tested by generated histories:
 * A1. An approval ends once, and nothing about it changes after that.
 * A2. It ends approved only by yeses of `quorum` distinct reviewers, each allowed to answer, each to the hash it is
 *     bound to, all before it expires.
 * A3. One no ends it rejected. Silence ends it expired, which is a no.
 * A4. Who asked never answers.
 * A5. Memory is bounded: pending approvals by refusing more, ended ones by forgetting the oldest. The journal keeps all.
 */

export const MAX_PENDING = 10_000;
export const MAX_PENDING_TEXT = 32 << 20;
export const MAX_LIFETIME_MS = 30 * 24 * 3_600_000;
/** Ended by one command at most; the rest are still due after it. */
export const MAX_EXPIRED_AT_ONCE = 200;

export type Reviewer = { readonly name: string; readonly groups: readonly string[] };

export type Command =
  | { readonly kind: "request"; readonly approval: NewApproval; readonly nowMs: number }
  | {
      readonly kind: "approve";
      readonly approvalId: string;
      readonly reviewer: Reviewer;
      /** Of what the reviewer saw. */
      readonly argumentsHash: string;
      readonly comment: string;
      readonly nowMs: number;
    }
  | {
      readonly kind: "reject";
      readonly approvalId: string;
      readonly reviewer: Reviewer;
      readonly comment: string;
      readonly nowMs: number;
    }
  | {
      readonly kind: "cancel";
      readonly approvalId: string;
      readonly by: string;
      readonly reason: string;
      readonly nowMs: number;
    }
  /** Ends what is due. */
  | { readonly kind: "expire"; readonly nowMs: number };

export type Refusal =
  | { readonly kind: "not found"; readonly approvalId: string }
  | { readonly kind: "mismatch"; readonly approvalId: string; readonly field: keyof Binding }
  | { readonly kind: "expiry past" }
  | { readonly kind: "expiry too far" }
  | { readonly kind: "too many pending" }
  | { readonly kind: "self approval"; readonly reviewer: string; readonly as: "user" | "agent" }
  | { readonly kind: "not an approver"; readonly reviewer: string; readonly group: string }
  | { readonly kind: "already decided"; readonly approvalId: string; readonly ending: Ending }
  /** Its time is over but nobody has recorded that yet: send `expire`. */
  | { readonly kind: "overdue"; readonly approvalId: string; readonly expiresAtMs: number }
  | { readonly kind: "arguments changed"; readonly approvalId: string }
  | { readonly kind: "already voted"; readonly approvalId: string; readonly vote: Vote };

export const decider: Decider<State, Command, Event, Refusal> = {
  initial,
  decide,
  evolve,
  eventToJson,
  eventFromJson,
  stateToJson,
  stateFromJson,
};

export function decide(state: State, command: Command): Decided<Event, Refusal> {
  switch (command.kind) {
    case "request":
      return decideRequest(state, command.approval, command.nowMs);
    case "approve":
    case "reject":
      return decideVote(state, command);
    case "cancel": {
      const approval = findApproval(state, command.approvalId);
      if (approval === undefined) return refused({ kind: "not found", approvalId: command.approvalId });
      // What has ended needs no withdrawing: whoever cancels reads in the answer how it ended.
      if (approval.ending !== undefined) return accepted([]);
      const { by, reason, nowMs } = command;
      return accepted([resolved(approval, { end: "cancelled", by: [by], reason, timeMs: nowMs })]);
    }
    case "expire": {
      const { nowMs } = command;
      const due: Event[] = [];
      for (const approval of state.pending.values()) {
        if (due.length === MAX_EXPIRED_AT_ONCE) break;
        if (approval.expiresAtMs > nowMs) continue;
        due.push(resolved(approval, { end: "expired", by: [], reason: "", timeMs: nowMs }));
      }
      return accepted(due);
    }
  }
}

function decideRequest(state: State, approval: NewApproval, nowMs: number): Decided<Event, Refusal> {
  const { approvalId } = approval.binding;
  const known = findApproval(state, approvalId);
  if (known !== undefined) {
    const field = difference(known.binding, approval.binding);
    return field === undefined ? accepted([]) : refused({ kind: "mismatch", approvalId, field });
  }
  if (approval.expiresAtMs <= nowMs) return refused({ kind: "expiry past" });
  if (approval.expiresAtMs > nowMs + MAX_LIFETIME_MS) return refused({ kind: "expiry too far" });
  if (state.pending.size >= MAX_PENDING || state.pendingText + textOf(approval) > MAX_PENDING_TEXT) {
    return refused({ kind: "too many pending" });
  }
  return accepted([{ kind: "requested", approval }]);
}

/** Refusals in order of precedence: what a reviewer may not do at all comes before what they may not do now. */
function decideVote(state: State, command: Command & { kind: "approve" | "reject" }): Decided<Event, Refusal> {
  const { approvalId, reviewer, comment, nowMs } = command;
  const approve = command.kind === "approve";
  const approval = findApproval(state, approvalId);
  if (approval === undefined) return refused({ kind: "not found", approvalId });
  const { binding, votes, ending, expiresAtMs } = approval;

  const barred = barredFrom(binding, reviewer);
  if (barred !== undefined) return refused(barred);
  const previous = votes.find((vote) => vote.reviewer === reviewer.name);
  const sameHash = command.kind === "reject" || command.argumentsHash === binding.argumentsHash;
  if (previous?.approve === approve && sameHash) return accepted([]);
  if (ending !== undefined) return refused({ kind: "already decided", approvalId, ending });
  if (expiresAtMs <= nowMs) return refused({ kind: "overdue", approvalId, expiresAtMs });
  if (!sameHash) return refused({ kind: "arguments changed", approvalId });
  if (previous !== undefined) return refused({ kind: "already voted", approvalId, vote: previous });

  const vote: Vote = { reviewer: reviewer.name, approve, comment, timeMs: nowMs };
  const voted: Event = { kind: "voted", approvalId, vote };
  const all = [...votes, vote];
  const end: End | undefined = !approve ? "rejected" : all.length >= binding.quorum ? "approved" : undefined;
  if (end === undefined) return accepted([voted]);
  // Every vote before this one was a yes: a no would have ended it.
  const by = approve ? all.map((one) => one.reviewer) : [reviewer.name];
  return accepted([voted, resolved({ ...approval, votes: all }, { end, by, reason: comment, timeMs: nowMs })]);
}

function barredFrom({ principal, approverGroup }: Binding, { name, groups }: Reviewer): Refusal | undefined {
  for (const as of ["user", "agent"] as const) {
    // The requester's runtime spells the name: other capitals must not make another person.
    if (principal[as].toLowerCase() === name.toLowerCase()) return { kind: "self approval", reviewer: name, as };
  }
  if (approverGroup === "" || groups.includes(approverGroup)) return undefined;
  return { kind: "not an approver", reviewer: name, group: approverGroup };
}

function difference(a: Binding, b: Binding): keyof Binding | undefined {
  const same: Readonly<Record<keyof Binding, boolean>> = {
    approvalId: a.approvalId === b.approvalId,
    ref: a.ref.session === b.ref.session && a.ref.callId === b.ref.callId,
    principal:
      a.principal.tenant === b.principal.tenant &&
      a.principal.agent === b.principal.agent &&
      a.principal.session === b.principal.session &&
      a.principal.user === b.principal.user,
    tool: a.tool === b.tool,
    toolDigest: a.toolDigest === b.toolDigest,
    argumentsHash: a.argumentsHash === b.argumentsHash,
    approverGroup: a.approverGroup === b.approverGroup,
    quorum: a.quorum === b.quorum,
  };
  return (Object.keys(same) as (keyof Binding)[]).find((field) => !same[field]);
}

export function evolve(state: State, event: Event): State {
  switch (event.kind) {
    case "requested":
      addApproval(state, { ...event.approval, votes: [], ending: undefined });
      return state;
    case "voted": {
      const approval = state.pending.get(event.approvalId);
      if (approval === undefined) return state;
      state.pending.set(event.approvalId, { ...approval, votes: [...approval.votes, event.vote] });
      return state;
    }
    case "resolved": {
      const { approvalId } = event.binding;
      const approval = state.pending.get(approvalId);
      if (approval === undefined) return state;
      state.pending.delete(approvalId);
      state.pendingText -= textOf(approval);
      addApproval(state, { ...approval, ending: event.ending });
      return state;
    }
  }
}

function resolved({ binding, createdAtMs, expiresAtMs, votes }: Approval, ending: Ending): Event {
  return { kind: "resolved", binding, createdAtMs, expiresAtMs, votes, ending };
}

function accepted(events: readonly Event[]): Decided<Event, Refusal> {
  return { kind: "accepted", events };
}

function refused(refusal: Refusal): Decided<Event, Refusal> {
  return { kind: "refused", refusal };
}

import type { Decider } from "../shared/decider.ts";
import { decideAnswer } from "./answers.ts";
import type { Absence, Approval, Binding, Ending, Event, NewApproval, Told } from "./approval.ts";
import { eventFromJson, eventToJson, stateFromJson, stateToJson } from "./codec.ts";
import {
  accepted,
  type Command,
  type Once,
  type Refusal,
  refused,
  resolveAll,
  resolved,
  type Verdict,
} from "./commands.ts";
import { standingOf } from "./eligibility.ts";
import { evolve } from "./evolve.ts";
import { covers } from "./grants.ts";
import { findApproval, initial, likeness, type State, textOf } from "./state.ts";

/**
 * The approvals of one tenant.
 *
 * Invariants, held by decide and tested by generated histories:
 * A1. An approval ends once, and nothing about it changes after that.
 * A2. It ends approved only by yeses of `quorum` distinct reviewers of each group, each allowed to answer, each to the
 *     hash that will run, all before it expires; or by a grant that covers it, is live, and whose giver may still answer.
 * A3. One no ends it rejected: everybody who may answer has a veto. Silence ends it expired, which is a no.
 * A4. Who asked never answers.
 * A5. Memory is bounded: pending approvals by refusing more, ended ones by forgetting the oldest. The journal keeps all.
 * A6. A call joins an identical one of its session only while nobody has answered that; a yes counts the calls it saw.
 */

export const MAX_PENDING = 20_000;
export const MAX_PENDING_TEXT = 64 << 20;
export const MAX_LIFETIME_MS = 30 * 24 * 3_600_000;
/** Ended by one command at most; the rest are still due after it. */
export const MAX_EXPIRED_AT_ONCE = 200;
export const MAX_JOINED = 20;
export const MAX_ABSENCE_MS = 90 * 24 * 3_600_000;

export const decider: Decider<State, Command, Event, Refusal> = {
  initial,
  decide,
  evolve,
  eventToJson,
  eventFromJson,
  stateToJson,
  stateFromJson,
};

export function decide(state: State, command: Command): Verdict {
  switch (command.kind) {
    case "request":
      return decideRequest(state, command);
    case "approve":
    case "reject":
    case "ask":
    case "answer":
      return decideAnswer(state, command);
    case "cancel":
      return decideCancel(state, command);
    case "expire": {
      const { nowMs } = command;
      const due: Event[] = [];
      for (const approval of state.pending.values()) {
        if (due.length >= MAX_EXPIRED_AT_ONCE) break;
        if (approval.expiresAtMs > nowMs) continue;
        due.push(...resolveAll(approval, { end: "expired", by: [], reason: "", grantId: "", timeMs: nowMs }));
      }
      return accepted(due);
    }
    case "revoke": {
      const { grantId, by, nowMs } = command;
      const grant = state.grants.get(grantId);
      if (grant === undefined) return refused({ kind: "grant not found" });
      return accepted(grant.revokedBy === "" ? [{ kind: "revoked", grantId, by, timeMs: nowMs }] : []);
    }
    case "absent":
      return decideAbsence(state, command.absence, command.nowMs);
    case "claim":
      return decideClaim(state, command);
    case "tell": {
      const { approvalId, channel, was, told } = command;
      if (findApproval(state, approvalId) === undefined) return refused({ kind: "not found", approvalId });
      const known = state.told.get(approvalId)?.get(channel);
      if (sameTold(known, told)) return accepted([]);
      return sameTold(known, was)
        ? accepted([{ kind: "told", approvalId, channel, told }])
        : refused({ kind: "told already" });
    }
  }
}

function decideRequest(state: State, command: Extract<Command, { kind: "request" }>): Verdict {
  const { approval, givers, nowMs } = command;
  const { binding } = approval;
  const { approvalId } = binding;
  const known = findApproval(state, approvalId);
  if (known !== undefined) {
    const own = [known.binding, ...known.joined].find((one) => one.approvalId === approvalId);
    const field = own === undefined ? "approvalId" : difference(own, binding);
    return field === undefined ? accepted([]) : refused({ kind: "mismatch", approvalId, field });
  }
  if (approval.expiresAtMs <= nowMs) return refused({ kind: "expiry past" });
  if (approval.expiresAtMs > nowMs + MAX_LIFETIME_MS) return refused({ kind: "expiry too far" });
  if (state.pending.size >= MAX_PENDING || state.pendingText + textOf(approval) > MAX_PENDING_TEXT) {
    return refused({ kind: "too many pending" });
  }
  const moment = { absences: state.absences, nowMs };
  const grant = [...state.grants.values()].find((one) => {
    const giver = givers.find(({ name }) => name === one.by);
    // Whoever could not answer this one now has not answered it ahead.
    const couldAnswer = giver !== undefined && standingOf(binding, giver, moment, []).kind === "eligible";
    return couldAnswer && covers(one, approval, nowMs);
  });
  if (grant !== undefined) {
    const { grantId, by } = grant;
    const ending: Ending = { end: "approved", by: [by], reason: "", grantId, timeMs: nowMs };
    return accepted([{ kind: "requested", approval }, resolved(asPending(approval), binding, ending)]);
  }
  const alike = state.pending.get(state.alike.get(likeness(binding)) ?? "");
  if (alike !== undefined && isOpenToMore(alike, nowMs)) {
    return accepted([{ kind: "joined", approvalId: alike.binding.approvalId, binding }]);
  }
  return accepted([{ kind: "requested", approval }]);
}

function isOpenToMore({ votes, edit, joined, expiresAtMs }: Approval, nowMs: number): boolean {
  return votes.length === 0 && edit === undefined && joined.length < MAX_JOINED && expiresAtMs > nowMs;
}

function decideCancel(state: State, command: Extract<Command, { kind: "cancel" }>): Verdict {
  const { approvalId, by, reason, nowMs } = command;
  const approval = findApproval(state, approvalId);
  if (approval === undefined) return refused({ kind: "not found", approvalId });
  // What has ended needs no withdrawing: whoever cancels reads in the answer how it ended.
  const own = [approval.binding, ...approval.joined].find((one) => one.approvalId === approvalId);
  if (approval.ending !== undefined || own === undefined) return accepted([]);
  return accepted([resolved(approval, own, { end: "cancelled", by: [by], reason, grantId: "", timeMs: nowMs })]);
}

function decideAbsence(state: State, absence: Absence, nowMs: number): Verdict {
  const { reviewer, untilMs, standIn } = absence;
  const known = state.absences.get(reviewer);
  if (untilMs > nowMs + MAX_ABSENCE_MS) {
    return refused({ kind: "absence invalid", why: `give a date within ${MAX_ABSENCE_MS / 86_400_000} days` });
  }
  if (standIn.toLowerCase() === reviewer.toLowerCase()) {
    return refused({ kind: "absence invalid", why: "name somebody else to stand in" });
  }
  const same = known?.untilMs === untilMs && known.standIn === standIn;
  const isBack = untilMs <= nowMs && (known === undefined || known.untilMs <= nowMs);
  return accepted(same || isBack ? [] : [{ kind: "absent", absence }]);
}

function decideClaim(state: State, { key, attempt, untilMs, nowMs }: Once & { readonly nowMs: number }): Verdict {
  const claim = state.claims.get(key);
  if (claim !== undefined) return claim.attempt === attempt ? accepted([]) : refused({ kind: "replayed" });
  if (untilMs <= nowMs) return refused({ kind: "replayed" });
  return accepted([{ kind: "claimed", key, attempt, untilMs }]);
}

function sameTold(a: Told | undefined, b: Told | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.address === b.address && a.shows === b.shows && a.reminders === b.reminders && a.timeMs === b.timeMs;
}

function difference(a: Binding, b: Binding): keyof Binding | undefined {
  return (Object.keys(a) as (keyof Binding)[]).find((field) => JSON.stringify(a[field]) !== JSON.stringify(b[field]));
}

function asPending(approval: NewApproval): Approval {
  return { ...approval, votes: [], edit: undefined, questions: [], joined: [], version: 1, ending: undefined };
}

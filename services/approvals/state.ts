import type { Absence, Approval, Binding, Grant, NewApproval, Told } from "./approval.ts";

/** The approvals of one tenant that are held in memory. Owned by the executor; changed in place. */

export type State = {
  readonly pending: Map<string, Approval>;
  /** In the order in which they ended. */
  readonly ended: Map<string, Approval>;
  /** Characters of text the two hold. */
  pendingText: number;
  endedText: number;
  /** By what makes two calls of a session alike: the pending approval that a further one joins. */
  readonly alike: Map<string, string>;
  /** Of a call that joined another's approval: which. */
  readonly joined: Map<string, string>;
  readonly grants: Map<string, Grant>;
  readonly absences: Map<string, Absence>;
  /** When each reviewer answered within the last hour. */
  readonly answers: Map<string, readonly number[]>;
  readonly claims: Map<string, { readonly attempt: string; readonly untilMs: number }>;
  /** Messages by approval and channel: gone once they show the end. */
  readonly told: Map<string, ReadonlyMap<string, Told>>;
};

export const KEEP_ENDED = 10_000;
export const KEEP_ENDED_TEXT = 16 << 20;
/** A grant that is over is shown for so long. */
export const KEEP_GRANT_MS = 24 * 3_600_000;
export const RATE_WINDOW_MS = 3_600_000;
const KEEP_ANSWERS = 1_000;

export function initial(): State {
  return {
    pending: new Map(),
    ended: new Map(),
    pendingText: 0,
    endedText: 0,
    alike: new Map(),
    joined: new Map(),
    grants: new Map(),
    absences: new Map(),
    answers: new Map(),
    claims: new Map(),
    told: new Map(),
  };
}

/** Also by the id of a call that joined it. */
export function findApproval(state: State, approvalId: string): Approval | undefined {
  const id = state.joined.get(approvalId) ?? approvalId;
  return state.pending.get(id) ?? state.ended.get(id);
}

/** When the next pending approval expires. */
export function earliestExpiry(state: State): number | undefined {
  let earliest: number | undefined;
  for (const { expiresAtMs } of state.pending.values()) {
    if (earliest === undefined || expiresAtMs < earliest) earliest = expiresAtMs;
  }
  return earliest;
}

/** What two calls have in common that one answer may serve: everything but their ids. */
export function likeness({ ref: _, approvalId: __, ...same }: Binding): string {
  const { principal, tool, toolDigest, argumentsHash, policyRevision, need } = same;
  const { groups, quorum, confirm, escalateGroup } = need;
  const { agent, session, user } = principal;
  return JSON.stringify([
    ...[agent, session, user, tool, toolDigest, argumentsHash],
    ...[policyRevision, groups, quorum, confirm, escalateGroup],
  ]);
}

/** Characters of the parts of an approval that may be long. */
export function textOf({ shown }: NewApproval): number {
  const { argumentsJson, sentence, toolDescription, reasons, labels, rules, firstArguments } = shown;
  return [sentence, toolDescription, ...reasons, ...labels, ...rules, ...firstArguments].reduce(
    (sum, text) => sum + text.length,
    argumentsJson.length,
  );
}

/** Puts an approval where it belongs, and forgets the oldest ended ones beyond the bound. */
export function addApproval(state: State, approval: Approval): void {
  const { approvalId } = approval.binding;
  if (approval.ending === undefined) {
    state.pending.set(approvalId, approval);
    state.pendingText += textOf(approval);
    state.alike.set(likeness(approval.binding), approvalId);
    for (const one of approval.joined) state.joined.set(one.approvalId, approvalId);
    return;
  }
  state.ended.set(approvalId, approval);
  state.endedText += textOf(approval);
  for (const [id, oldest] of state.ended) {
    if (state.ended.size <= KEEP_ENDED && state.endedText <= KEEP_ENDED_TEXT) return;
    state.ended.delete(id);
    state.told.delete(id);
    state.endedText -= textOf(oldest);
  }
}

/** Takes a pending approval out; what it was joined by is left to the caller. */
export function removePending(state: State, approval: Approval): void {
  const { approvalId } = approval.binding;
  state.pending.delete(approvalId);
  state.pendingText -= textOf(approval);
  const key = likeness(approval.binding);
  if (state.alike.get(key) === approvalId) state.alike.delete(key);
  for (const one of approval.joined) state.joined.delete(one.approvalId);
}

/** Notes an answer, for the rate that is shown; forgets what is older than an hour. */
export function noteAnswer(state: State, reviewer: string, timeMs: number): void {
  const recent = (state.answers.get(reviewer) ?? []).filter((at) => at > timeMs - RATE_WINDOW_MS);
  state.answers.set(reviewer, [...recent, timeMs].slice(-KEEP_ANSWERS));
}

/** Forgets claims whose time is over: what they guarded is refused by its own expiry then. */
export function addClaim(state: State, key: string, claim: { attempt: string; untilMs: number }, nowMs: number): void {
  for (const [old, { untilMs }] of state.claims) {
    if (untilMs >= nowMs) break; // they come with about the same life, so the oldest are first
    state.claims.delete(old);
  }
  state.claims.set(key, claim);
}

export function addGrant(state: State, grant: Grant, nowMs: number): void {
  for (const [id, old] of state.grants) if (old.untilMs + KEEP_GRANT_MS < nowMs) state.grants.delete(id);
  state.grants.set(grant.grantId, grant);
}

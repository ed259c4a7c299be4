import type { Approval } from "./approval.ts";
import { RATE_WINDOW_MS, type State } from "./state.ts";

/** How a tenant's approvals go, of those that are remembered: for people who are asked too much. Pure. */

/** Asked so often without one no: what an operator may want to look at. */
const CANDIDATE_FROM = 20;

export type RuleStats = {
  readonly rule: string;
  readonly approved: number;
  readonly rejected: number;
  readonly expired: number;
  readonly cancelled: number;
  /** From the question to its end, of those that people ended; undefined: none. */
  readonly answerP50Ms: number | undefined;
  readonly answerP90Ms: number | undefined;
  readonly candidate: boolean;
};

export type ReviewerStats = {
  readonly reviewer: string;
  readonly approved: number;
  readonly rejected: number;
  readonly hasty: number;
  readonly lastHour: number;
};

export function statsOf(
  state: State,
  nowMs: number,
): { readonly rules: readonly RuleStats[]; readonly reviewers: readonly ReviewerStats[] } {
  const byRule = new Map<string, Approval[]>();
  for (const approval of state.ended.values()) {
    for (const rule of approval.shown.rules) {
      const known = byRule.get(rule);
      if (known === undefined) byRule.set(rule, [approval]);
      else known.push(approval);
    }
  }
  const rules = [...byRule].map(([rule, approvals]) => ruleStats(rule, approvals));
  const votes = [...state.ended.values(), ...state.pending.values()].flatMap((approval) => approval.votes);
  const byReviewer = Map.groupBy(votes, (vote) => vote.reviewer);
  const reviewers = [...byReviewer].map(([reviewer, given]) => ({
    reviewer,
    approved: given.filter((vote) => vote.approve).length,
    rejected: given.filter((vote) => !vote.approve).length,
    hasty: given.filter((vote) => vote.hasty).length,
    lastHour: rateOf(state, reviewer, nowMs),
  }));
  return {
    rules: rules.toSorted((a, b) => b.approved + b.rejected - a.approved - a.rejected),
    reviewers: reviewers.toSorted((a, b) => b.approved + b.rejected - a.approved - a.rejected),
  };
}

/** Answers within the last hour. */
export function rateOf(state: State, reviewer: string, nowMs: number): number {
  return (state.answers.get(reviewer) ?? []).filter((at) => at > nowMs - RATE_WINDOW_MS).length;
}

function ruleStats(rule: string, approvals: readonly Approval[]): RuleStats {
  const count = (end: string): number => approvals.filter((one) => one.ending?.end === end).length;
  const answered = approvals.filter(({ ending }) => ending?.end === "approved" || ending?.end === "rejected");
  const times = answered
    .map(({ createdAtMs, ending }) => (ending?.timeMs ?? 0) - createdAtMs)
    .toSorted((a, b) => a - b);
  const approved = count("approved");
  const rejected = count("rejected");
  return {
    rule,
    approved,
    rejected,
    expired: count("expired"),
    cancelled: count("cancelled"),
    answerP50Ms: times[Math.floor(times.length / 2)],
    answerP90Ms: times[Math.floor(times.length * 0.9)],
    candidate: approved >= CANDIDATE_FROM && rejected === 0,
  };
}

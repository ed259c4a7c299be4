import { type Approval, currentHash, type Edit, type Event, type Question, type Vote } from "./approval.ts";
import {
  type Approve,
  accepted,
  type Command,
  type Once,
  type Reject,
  refused,
  resolveAll,
  type Verdict,
} from "./commands.ts";
import { earlierVote, isEnough, standingOf } from "./eligibility.ts";
import { grantOf, problemOfTerms } from "./grants.ts";
import { readingMs } from "./pace.ts";
import { findApproval, type State } from "./state.ts";

/** What people and agents answer. Pure: a part of the decider. */

export const MAX_QUESTIONS = 10;

type AnswerCommand = Extract<Command, { kind: "approve" | "reject" | "ask" | "answer" }>;

export function decideAnswer(state: State, command: AnswerCommand): Verdict {
  const { approvalId } = command;
  const approval = findApproval(state, approvalId);
  if (approval === undefined) return refused({ kind: "not found", approvalId });
  switch (command.kind) {
    case "approve":
    case "reject":
      return decideVote(state, approval, command);
    case "ask":
      return decideQuestion(state, approval, command);
    case "answer": {
      const { questionId, text, nowMs } = command;
      const question = approval.questions.find((one) => one.questionId === questionId);
      if (question === undefined) return refused({ kind: "question not found" });
      if (question.answer?.text === text) return accepted([]);
      if (approval.ending !== undefined)
        return refused({ kind: "already decided", approvalId, ending: approval.ending });
      return accepted([{ kind: "answered", approvalId: approval.binding.approvalId, questionId, text, timeMs: nowMs }]);
    }
  }
}

/** Refusals in order of precedence: what a reviewer may not do at all comes before what they may not do now. */
function decideVote(state: State, approval: Approval, command: Approve | Reject): Verdict {
  const { reviewer, nowMs, once } = command;
  const { binding, votes, ending, expiresAtMs } = approval;
  const { approvalId } = binding;
  if (isReplayed(state, once)) return refused({ kind: "replayed" });
  const hash = currentHash(approval);
  const current = votes.filter((vote) => vote.argumentsHash === hash);
  const standing = standingOf(binding, reviewer, { absences: state.absences, nowMs }, current);
  if (standing.kind !== "eligible") return refused(standing);

  const wanted = command.kind === "reject" ? hash : (command.edit?.argumentsHash ?? command.argumentsHash);
  const previous = earlierVote(current, hash, { reviewer: reviewer.name, as: standing.as });
  const isOwn = previous?.reviewer === reviewer.name;
  if (isOwn && previous.approve === (command.kind === "approve") && wanted === hash) return accepted([]);
  if (ending !== undefined) return refused({ kind: "already decided", approvalId, ending });
  if (expiresAtMs <= nowMs) return refused({ kind: "overdue", approvalId, expiresAtMs });
  if (command.kind === "approve" && command.argumentsHash !== hash) {
    return refused({ kind: "arguments changed", approvalId });
  }
  if (previous !== undefined && wanted === hash) return refused({ kind: "already voted", approvalId, vote: previous });
  const vote: Vote = {
    reviewer: reviewer.name,
    as: standing.as,
    groups: standing.groups,
    approve: command.kind === "approve",
    argumentsHash: wanted,
    comment: command.comment,
    hasty: isHasty(state, approval, reviewer.name, nowMs),
    timeMs: nowMs,
  };
  const claim: Event[] = once === undefined ? [] : [{ kind: "claimed", ...once }];
  const events = command.kind === "reject" ? rejection(approval, vote) : consent(approval, vote, command);
  return Array.isArray(events) ? accepted([...claim, ...events]) : (events as Verdict);
}

function rejection(approval: Approval, vote: Vote): Event[] {
  const after = { ...approval, votes: [...approval.votes, vote] };
  const ending = {
    end: "rejected",
    by: [vote.reviewer],
    reason: vote.comment,
    grantId: "",
    timeMs: vote.timeMs,
  } as const;
  return [voted(approval, vote), ...resolveAll(after, ending)];
}

function consent(approval: Approval, vote: Vote, command: Approve): Event[] | Verdict {
  const { nowMs, grant } = command;
  const calls = 1 + approval.joined.length;
  if (command.calls !== calls) return refused({ kind: "calls joined", calls });
  const edit: Edit | undefined =
    command.edit === undefined || command.edit.argumentsHash === currentHash(approval)
      ? approval.edit
      : { ...command.edit, reviewer: vote.reviewer, timeMs: nowMs };
  const after: Approval = { ...approval, edit, votes: [...approval.votes, vote] };
  if (grant !== undefined) {
    const why = problemOfTerms(after, grant, nowMs);
    if (why !== undefined) return refused({ kind: "grant invalid", why });
  }
  const { approvalId } = approval.binding;
  const events: Event[] = edit === undefined || edit === approval.edit ? [] : [{ kind: "edited", approvalId, edit }];
  events.push(voted(approval, vote));
  const yeses = after.votes.filter((one) => one.approve && one.argumentsHash === vote.argumentsHash);
  if (!isEnough(approval.binding.need, yeses)) return events;
  const by = yeses.map((one) => one.reviewer);
  events.push(...resolveAll(after, { end: "approved", by, reason: vote.comment, grantId: "", timeMs: nowMs }));
  if (grant !== undefined) events.push({ kind: "granted", grant: grantOf(after, vote.reviewer, grant) });
  return events;
}

function decideQuestion(state: State, approval: Approval, command: Extract<Command, { kind: "ask" }>): Verdict {
  const { reviewer, questionId, text, nowMs, once } = command;
  const { binding, questions, ending, expiresAtMs } = approval;
  const { approvalId } = binding;
  if (isReplayed(state, once)) return refused({ kind: "replayed" });
  const standing = standingOf(binding, reviewer, { absences: state.absences, nowMs }, []);
  if (standing.kind !== "eligible") return refused(standing);
  if (questions.some((one) => one.questionId === questionId)) return accepted([]);
  if (ending !== undefined) return refused({ kind: "already decided", approvalId, ending });
  if (expiresAtMs <= nowMs) return refused({ kind: "overdue", approvalId, expiresAtMs });
  if (questions.length >= MAX_QUESTIONS) return refused({ kind: "too many questions" });
  const question: Question = { questionId, reviewer: reviewer.name, text, timeMs: nowMs, answer: undefined };
  const claim: Event[] = once === undefined ? [] : [{ kind: "claimed", ...once }];
  return accepted([...claim, { kind: "asked", approvalId, question }]);
}

/** The same try again is no replay: it may not have heard that it was first. */
function isReplayed(state: State, once: Once | undefined): boolean {
  const claim = once === undefined ? undefined : state.claims.get(once.key);
  return claim !== undefined && claim.attempt !== once?.attempt;
}

/** Nobody reads it before it is there, nor while they answer another. */
function isHasty(state: State, approval: Approval, reviewer: string, nowMs: number): boolean {
  const lastMs = state.answers.get(reviewer)?.at(-1) ?? 0;
  return nowMs - Math.max(approval.createdAtMs, lastMs) < readingMs(approval);
}

function voted(approval: Approval, vote: Vote): Event {
  return { kind: "voted", approvalId: approval.binding.approvalId, vote };
}

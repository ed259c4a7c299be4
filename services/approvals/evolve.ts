import type { Approval, Event } from "./approval.ts";
import { addApproval, addClaim, addGrant, noteAnswer, removePending, type State } from "./state.ts";

/** Total over every event ever written. */
export function evolve(state: State, event: Event): State {
  switch (event.kind) {
    case "requested":
      addApproval(state, {
        ...event.approval,
        ...{ votes: [], edit: undefined, questions: [], joined: [], version: 1, ending: undefined },
      });
      return state;
    case "joined":
      change(state, event.approvalId, (approval) => ({ ...approval, joined: [...approval.joined, event.binding] }));
      state.joined.set(event.binding.approvalId, event.approvalId);
      return state;
    case "voted":
      noteAnswer(state, event.vote.reviewer, event.vote.timeMs);
      change(state, event.approvalId, (approval) => ({ ...approval, votes: [...approval.votes, event.vote] }));
      return state;
    case "edited":
      change(state, event.approvalId, (approval) => ({ ...approval, edit: event.edit }));
      return state;
    case "asked":
      change(state, event.approvalId, (approval) => ({
        ...approval,
        questions: [...approval.questions, event.question],
      }));
      return state;
    case "answered": {
      const { questionId, text, timeMs } = event;
      change(state, event.approvalId, (approval) => ({
        ...approval,
        questions: approval.questions.map((one) =>
          one.questionId === questionId ? { ...one, answer: { text, timeMs } } : one,
        ),
      }));
      return state;
    }
    case "resolved":
      return resolve(state, event);
    case "granted":
      addGrant(state, event.grant, event.grant.untilMs);
      return state;
    case "revoked": {
      const grant = state.grants.get(event.grantId);
      if (grant !== undefined) state.grants.set(event.grantId, { ...grant, revokedBy: event.by });
      return state;
    }
    case "absent":
      state.absences.delete(event.absence.reviewer);
      state.absences.set(event.absence.reviewer, event.absence);
      return state;
    case "claimed":
      addClaim(state, event.key, { attempt: event.attempt, untilMs: event.untilMs }, event.untilMs - CLAIM_LIFE_MS);
      return state;
    case "told": {
      const { approvalId, channel, told } = event;
      const known = state.told.get(approvalId);
      state.told.set(approvalId, new Map([...(known ?? []), [channel, told]]));
      return state;
    }
  }
}

/** No proof that is claimed lives longer. */
export const CLAIM_LIFE_MS = 24 * 3_600_000;

function change(state: State, approvalId: string, changed: (approval: Approval) => Approval): void {
  const approval = state.pending.get(approvalId);
  if (approval === undefined) return;
  state.pending.set(approvalId, { ...changed(approval), version: approval.version + 1 });
}

function resolve(state: State, { binding, ending }: Extract<Event, { kind: "resolved" }>): State {
  const { approvalId } = binding;
  if (ending.grantId !== "") {
    const grant = state.grants.get(ending.grantId);
    if (grant !== undefined) state.grants.set(grant.grantId, { ...grant, used: grant.used + 1 });
  }
  const first = state.pending.get(approvalId);
  if (first !== undefined) {
    removePending(state, first);
    const { joined, ...own } = first;
    addApproval(state, { ...own, joined: [], version: first.version + 1, ending });
    const [next, ...rest] = joined;
    // What joined it goes on waiting, with what was said: at once its own end follows, unless only the first was withdrawn.
    if (next !== undefined) addApproval(state, { ...first, binding: next, joined: rest, version: 1 });
    return state;
  }
  const among = state.pending.get(state.joined.get(approvalId) ?? "");
  if (among === undefined) return state;
  state.joined.delete(approvalId);
  change(state, among.binding.approvalId, (approval) => ({
    ...approval,
    joined: approval.joined.filter((one) => one.approvalId !== approvalId),
  }));
  addApproval(state, { ...among, binding, joined: [], ending });
  return state;
}

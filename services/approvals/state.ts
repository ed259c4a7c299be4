import type { Approval, NewApproval } from "./approval.ts";

/** The approvals of one tenant that are held in memory. Owned by the executor; changed in place. */

export type State = {
  readonly pending: Map<string, Approval>;
  /** In the order in which they ended. */
  readonly ended: Map<string, Approval>;
  /** Characters of text the two hold. */
  pendingText: number;
  endedText: number;
};

export const KEEP_ENDED = 10_000;
export const KEEP_ENDED_TEXT = 16 << 20;

export function initial(): State {
  return { pending: new Map(), ended: new Map(), pendingText: 0, endedText: 0 };
}

export function findApproval(state: State, approvalId: string): Approval | undefined {
  return state.pending.get(approvalId) ?? state.ended.get(approvalId);
}

/** When the next pending approval expires. */
export function earliestExpiry(state: State): number | undefined {
  let earliest: number | undefined;
  for (const { expiresAtMs } of state.pending.values()) {
    if (earliest === undefined || expiresAtMs < earliest) earliest = expiresAtMs;
  }
  return earliest;
}

/** Characters of the parts of an approval that may be long. */
export function textOf({ shown }: NewApproval): number {
  const { argumentsJson, toolDescription, reasons, labels } = shown;
  return [toolDescription, ...reasons, ...labels].reduce((sum, text) => sum + text.length, argumentsJson.length);
}

/** Puts an approval where it belongs, and forgets the oldest ended ones beyond the bound. */
export function addApproval(state: State, approval: Approval): void {
  const { approvalId } = approval.binding;
  if (approval.ending === undefined) {
    state.pending.set(approvalId, approval);
    state.pendingText += textOf(approval);
    return;
  }
  state.ended.set(approvalId, approval);
  state.endedText += textOf(approval);
  for (const [id, oldest] of state.ended) {
    if (state.ended.size <= KEEP_ENDED && state.endedText <= KEEP_ENDED_TEXT) return;
    state.ended.delete(id);
    state.endedText -= textOf(oldest);
  }
}

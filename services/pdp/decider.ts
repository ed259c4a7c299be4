import type { Decided, Decider } from "../shared/decider.ts";

/**
 * The revisions of one tenant's policy, and the changes that lead from one to the next. Stream `policy.<tenant>`.
 *
 * P1. What is active changes only by a change that was looked at against what was active then.
 * P2. A change that needs approval is approved by so many different people, none of them its author.
 * P3. Nothing is forgotten: every revision that ever was proposed can be shown and made active again.
 * P4. The files of a revision are in the record before it is proposed.
 */

export type RevisionRecord = {
  /** Counted from 1. */
  readonly number: number;
  /** SHA-256 of model and rules. */
  readonly revision: string;
  /** SHA-256 of its packed files, by which they are found in the record. */
  readonly bundle: string;
  readonly author: string;
  readonly reason: string;
  readonly timeMs: number;
  readonly rules: number;
  readonly added: number;
  readonly removed: number;
  /** Lines that begin with + or -, as many as are kept. */
  readonly diff: readonly string[];
  /** Who signed it; empty for nobody. */
  readonly keyId: string;
};

export type Change = {
  readonly id: string;
  readonly kind: "push" | "rollback";
  /** The revision that it makes active. */
  readonly number: number;
  /** The active one when it was looked at; 0 for the files of the service. */
  readonly base: number;
  readonly author: string;
  readonly reason: string;
  readonly timeMs: number;
  readonly approvalsNeeded: number;
  /** The group that those who approve must belong to; empty for any. */
  readonly approverGroup: string;
  readonly approvedBy: readonly string[];
  readonly standing: "waiting" | "active" | "rejected";
};

export type Shadow = {
  readonly bundle: string;
  readonly revision: string;
  readonly author: string;
  readonly timeMs: number;
};

export type PolicyState = {
  /** Records so far: the last one's seq. */
  seq: number;
  /** By the packed files' SHA-256: where each part of them is. */
  readonly parts: Map<string, number[]>;
  readonly revisions: RevisionRecord[];
  readonly changes: Map<string, Change>;
  /** 0 for the files that services are started with. */
  active: number;
  shadow: Shadow | undefined;
};

type Asked = Pick<Change, "id" | "base" | "author" | "reason" | "timeMs" | "approvalsNeeded" | "approverGroup">;

export type PolicyCommand =
  | {
      readonly kind: "store";
      readonly bundle: string;
      readonly index: number;
      readonly count: number;
      readonly data: string;
    }
  | ({
      readonly kind: "push";
      readonly record: Omit<RevisionRecord, "number" | "author" | "reason" | "timeMs">;
    } & Asked)
  | ({ readonly kind: "rollback"; readonly number: number } & Asked)
  | { readonly kind: "approve"; readonly id: string; readonly by: string; readonly timeMs: number }
  | {
      readonly kind: "reject";
      readonly id: string;
      readonly by: string;
      readonly reason: string;
      readonly timeMs: number;
    }
  | {
      readonly kind: "shadow";
      readonly shadow: Shadow | undefined;
      readonly author: string;
      readonly reason: string;
      readonly timeMs: number;
    };

export type PolicyEvent =
  | {
      readonly kind: "stored";
      readonly bundle: string;
      readonly index: number;
      readonly count: number;
      readonly data: string;
    }
  | { readonly kind: "proposed"; readonly record?: RevisionRecord; readonly change: Change }
  | { readonly kind: "approved"; readonly id: string; readonly by: string; readonly timeMs: number }
  | { readonly kind: "activated"; readonly id: string; readonly number: number; readonly timeMs: number }
  | {
      readonly kind: "rejected";
      readonly id: string;
      readonly by: string;
      readonly reason: string;
      readonly timeMs: number;
    }
  | {
      readonly kind: "shadowed";
      readonly shadow: Shadow | null;
      readonly author: string;
      readonly reason: string;
      readonly timeMs: number;
    };

export type PolicyRefusal =
  /** Another revision has become active since. */
  | { readonly kind: "outdated" }
  | { readonly kind: "unknown_revision" }
  | { readonly kind: "unknown_change" }
  /** Two changes under one id. */
  | { readonly kind: "id_reused" }
  | { readonly kind: "own_change" }
  | { readonly kind: "over"; readonly standing: "active" | "rejected" }
  | { readonly kind: "files_missing" };

type Verdict = Decided<PolicyEvent, PolicyRefusal>;

export const policyDecider: Decider<PolicyState, PolicyCommand, PolicyEvent, PolicyRefusal> = {
  initial: () => ({ seq: 0, parts: new Map(), revisions: [], changes: new Map(), active: 0, shadow: undefined }),
  decide,
  evolve,
  eventToJson: (event) => event,
  eventFromJson: (json) => json as PolicyEvent,
  stateToJson: (state) => ({ ...state, parts: [...state.parts], changes: [...state.changes] }),
  stateFromJson: (json) => {
    const state = json as Omit<PolicyState, "parts" | "changes"> & {
      parts: [string, number[]][];
      changes: [string, Change][];
    };
    return { ...state, parts: new Map(state.parts), changes: new Map(state.changes) };
  },
};

function decide(state: PolicyState, command: PolicyCommand): Verdict {
  switch (command.kind) {
    case "store": {
      const { kind: _, ...part } = command;
      const known = state.parts.get(command.bundle)?.[command.index] ?? 0;
      return known > 0 ? accept() : accept({ kind: "stored", ...part });
    }
    case "push": {
      if (!isWhole(state, command.record.bundle)) return refuse({ kind: "files_missing" });
      const { author, reason, timeMs } = command;
      const record = { ...command.record, number: state.revisions.length + 1, author, reason, timeMs };
      const known = state.changes.get(command.id);
      if (known !== undefined) {
        const same = known.kind === "push" && state.revisions[known.number - 1]?.bundle === record.bundle;
        return same ? accept() : refuse({ kind: "id_reused" });
      }
      return propose(state, command, "push", record.number, record);
    }
    case "rollback": {
      const known = state.changes.get(command.id);
      if (known !== undefined) {
        return known.kind === "rollback" && known.number === command.number ? accept() : refuse({ kind: "id_reused" });
      }
      if (command.number !== 0 && state.revisions[command.number - 1] === undefined)
        return refuse({ kind: "unknown_revision" });
      return propose(state, command, "rollback", command.number, undefined);
    }
    case "approve":
      return decideApprove(state, command);
    case "reject": {
      const { id, by, reason, timeMs } = command;
      const change = state.changes.get(id);
      if (change === undefined) return refuse({ kind: "unknown_change" });
      if (change.standing === "active") return refuse({ kind: "over", standing: "active" });
      return change.standing === "rejected" ? accept() : accept({ kind: "rejected", id, by, reason, timeMs });
    }
    case "shadow": {
      const { shadow, author, reason, timeMs } = command;
      if (shadow !== undefined && !isWhole(state, shadow.bundle)) return refuse({ kind: "files_missing" });
      if (shadow?.revision === state.shadow?.revision) return accept();
      return accept({ kind: "shadowed", shadow: shadow ?? null, author, reason, timeMs });
    }
  }
}

function propose(
  state: PolicyState,
  asked: Asked,
  kind: Change["kind"],
  number: number,
  record: RevisionRecord | undefined,
): Verdict {
  if (asked.base !== state.active) return refuse({ kind: "outdated" });
  const { id, base, author, reason, timeMs, approvalsNeeded, approverGroup } = asked;
  const about = { id, kind, number, base, author, reason, timeMs, approvalsNeeded, approverGroup };
  const change: Change = { ...about, approvedBy: [], standing: "waiting" };
  const proposed: PolicyEvent = { kind: "proposed", ...(record && { record }), change };
  return approvalsNeeded > 0 ? accept(proposed) : accept(proposed, { kind: "activated", id, number, timeMs });
}

function decideApprove(state: PolicyState, { id, by, timeMs }: Extract<PolicyCommand, { kind: "approve" }>): Verdict {
  const change = state.changes.get(id);
  if (change === undefined) return refuse({ kind: "unknown_change" });
  if (change.author === by) return refuse({ kind: "own_change" });
  if (change.approvedBy.includes(by)) return accept();
  if (change.standing !== "waiting") return refuse({ kind: "over", standing: change.standing });
  if (change.base !== state.active) return refuse({ kind: "outdated" });
  const approved: PolicyEvent = { kind: "approved", id, by, timeMs };
  if (change.approvedBy.length + 1 < change.approvalsNeeded) return accept(approved);
  return accept(approved, { kind: "activated", id, number: change.number, timeMs });
}

function evolve(state: PolicyState, event: PolicyEvent): PolicyState {
  state.seq++;
  switch (event.kind) {
    case "stored": {
      const places = state.parts.get(event.bundle) ?? new Array<number>(event.count).fill(0);
      places[event.index] = state.seq;
      state.parts.set(event.bundle, places);
      break;
    }
    case "proposed":
      if (event.record !== undefined) state.revisions.push(event.record);
      state.changes.set(event.change.id, event.change);
      break;
    case "approved":
      update(state, event.id, (change) => ({ ...change, approvedBy: [...change.approvedBy, event.by] }));
      break;
    case "activated":
      state.active = event.number;
      update(state, event.id, (change) => ({ ...change, standing: "active" }));
      break;
    case "rejected":
      update(state, event.id, (change) => ({ ...change, standing: "rejected" }));
      break;
    case "shadowed":
      state.shadow = event.shadow ?? undefined;
      break;
  }
  return state;
}

function update(state: PolicyState, id: string, to: (change: Change) => Change): void {
  const change = state.changes.get(id);
  if (change !== undefined) state.changes.set(id, to(change));
}

/** Whether every part of the files is in the record. */
function isWhole(state: PolicyState, bundle: string): boolean {
  return state.parts.get(bundle)?.every((seq) => seq > 0) ?? false;
}

function accept(...events: PolicyEvent[]): Verdict {
  return { kind: "accepted", events };
}

function refuse(refusal: PolicyRefusal): Verdict {
  return { kind: "refused", refusal };
}

import type { Decided } from "../shared/decider.ts";
import type { Absence, Approval, Binding, Bound, Ending, Event, NewApproval, Told, Vote } from "./approval.ts";
import type { Reviewer } from "./eligibility.ts";

/** What can be asked of a tenant's approvals, and what they refuse. */

/** What may count once only: the proof that came with an answer. `attempt` names who tries, so a repeat of it is known. */
export type Once = { readonly key: string; readonly attempt: string; readonly untilMs: number };

type Answer = {
  readonly approvalId: string;
  readonly reviewer: Reviewer;
  readonly comment: string;
  readonly once?: Once;
  readonly nowMs: number;
};

export type Approve = Answer & {
  readonly kind: "approve";
  /** Of what the reviewer saw. */
  readonly argumentsHash: string;
  /** How many identical calls the reviewer saw. */
  readonly calls: number;
  /** Checked by the broker against schema and policy. */
  readonly edit?: { readonly argumentsJson: string; readonly argumentsHash: string };
  readonly grant?: { readonly uses: number; readonly untilMs: number; readonly bounds: readonly Bound[] };
};

export type Reject = Answer & { readonly kind: "reject" };

export type Command =
  | {
      readonly kind: "request";
      readonly approval: NewApproval;
      /** Who has given grants that may cover it, as they are now: a grant of anybody else counts for nothing. */
      readonly givers: readonly Reviewer[];
      readonly nowMs: number;
    }
  | Approve
  | Reject
  /** Asks the agent something before answering. */
  | (Omit<Answer, "comment"> & { readonly kind: "ask"; readonly questionId: string; readonly text: string })
  | {
      readonly kind: "answer";
      readonly approvalId: string;
      readonly questionId: string;
      readonly text: string;
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
  | { readonly kind: "expire"; readonly nowMs: number }
  | { readonly kind: "revoke"; readonly grantId: string; readonly by: string; readonly nowMs: number }
  /** untilMs of now or earlier: back again. */
  | { readonly kind: "absent"; readonly absence: Absence; readonly nowMs: number }
  | ({ readonly kind: "claim"; readonly nowMs: number } & Once)
  /** A message stands as told; `was`: as the teller found it, so that of two tellers one learns that it came second. */
  | {
      readonly kind: "tell";
      readonly approvalId: string;
      readonly channel: string;
      readonly was: Told | undefined;
      readonly told: Told;
    };

export type Refusal =
  | { readonly kind: "not found"; readonly approvalId: string }
  | { readonly kind: "mismatch"; readonly approvalId: string; readonly field: keyof Binding }
  | { readonly kind: "expiry past" }
  | { readonly kind: "expiry too far" }
  | { readonly kind: "too many pending" }
  | { readonly kind: "self approval"; readonly reviewer: string; readonly as: "user" | "agent" }
  | { readonly kind: "not eligible"; readonly reviewer: string; readonly groups: readonly string[] }
  | { readonly kind: "already decided"; readonly approvalId: string; readonly ending: Ending }
  /** Its time is over but nobody has recorded that yet: send `expire`. */
  | { readonly kind: "overdue"; readonly approvalId: string; readonly expiresAtMs: number }
  | { readonly kind: "arguments changed"; readonly approvalId: string }
  | { readonly kind: "calls joined"; readonly calls: number }
  | { readonly kind: "already voted"; readonly approvalId: string; readonly vote: Vote }
  | { readonly kind: "grant invalid"; readonly why: string }
  | { readonly kind: "too many questions" }
  | { readonly kind: "question not found" }
  | { readonly kind: "grant not found" }
  | { readonly kind: "absence invalid"; readonly why: string }
  /** It was used before. */
  | { readonly kind: "replayed" }
  | { readonly kind: "told already" };

export type Verdict = Decided<Event, Refusal>;

/** The end of an approval and of every call that joined it. */
export function resolveAll(approval: Approval, ending: Ending): Event[] {
  return [approval.binding, ...approval.joined].map((binding) => resolved(approval, binding, ending));
}

export function resolved({ createdAtMs, expiresAtMs, votes, edit }: Approval, binding: Binding, ending: Ending): Event {
  return { kind: "resolved", binding, createdAtMs, expiresAtMs, votes, edit, ending };
}

export function accepted(events: readonly Event[]): Verdict {
  return { kind: "accepted", events };
}

export function refused(refusal: Refusal): Verdict {
  return { kind: "refused", refusal };
}

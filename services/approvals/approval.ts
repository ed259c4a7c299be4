/** The words of approvals, as this service uses them inside. Nothing here is ever changed in place. */

/** What an approval is bound to. A yes is a yes to exactly this, from exactly these people. */
export type Binding = {
  readonly approvalId: string;
  readonly ref: { readonly session: string; readonly callId: string };
  readonly principal: {
    readonly tenant: string;
    readonly agent: string;
    readonly session: string;
    /** Empty when the agent acts for nobody. */
    readonly user: string;
  };
  readonly tool: string;
  readonly toolDigest: string;
  /** SHA-256 of the canonical arguments, hex. */
  readonly argumentsHash: string;
  /** Empty: any reviewer of the tenant. */
  readonly approverGroup: string;
  /** How many distinct reviewers must say yes; at least 1. */
  readonly quorum: number;
};

/** What a reviewer is shown besides. */
export type Shown = {
  readonly toolDescription: string;
  /** Secrets masked, so its hash is not argumentsHash. */
  readonly argumentsJson: string;
  readonly reasons: readonly string[];
  readonly policyRevision: string;
  readonly price: readonly { readonly unit: string; readonly value: bigint }[];
  readonly labels: readonly string[];
};

export type Vote = {
  readonly reviewer: string;
  readonly approve: boolean;
  readonly comment: string;
  readonly timeMs: number;
};

export type End = "approved" | "rejected" | "expired" | "cancelled";

/** `by` is the service that withdrew it, or who voted; empty when it expired. */
export type Ending = {
  readonly end: End;
  readonly by: readonly string[];
  readonly reason: string;
  readonly timeMs: number;
};

export type NewApproval = {
  readonly binding: Binding;
  readonly shown: Shown;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
};

/** Pending as long as it has no ending. */
export type Approval = NewApproval & { readonly votes: readonly Vote[]; readonly ending: Ending | undefined };

/** What happened; the journal keeps these for ever. */
export type Event =
  | { readonly kind: "requested"; readonly approval: NewApproval }
  | { readonly kind: "voted"; readonly approvalId: string; readonly vote: Vote }
  /** Says by itself all that whoever watches resolutions needs, long after the state has forgotten it. */
  | {
      readonly kind: "resolved";
      readonly binding: Binding;
      readonly createdAtMs: number;
      readonly expiresAtMs: number;
      readonly votes: readonly Vote[];
      readonly ending: Ending;
    };

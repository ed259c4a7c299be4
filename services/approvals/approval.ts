/** The words of approvals, as this service uses them inside. Nothing here is ever changed in place. */

/** Who has to say yes. */
export type Need = {
  /** All of them have to; empty: any reviewer of the tenant. */
  readonly groups: readonly string[];
  /** How many distinct reviewers of each group; at least 1. */
  readonly quorum: number;
  /** The user the agent acts for may answer: policy wants a confirmation, not four eyes. */
  readonly confirm: boolean;
  /** Its members may answer for any group from escalateAtMs on; empty: nobody may. */
  readonly escalateGroup: string;
  readonly escalateAtMs: number;
};

export type Principal = {
  readonly tenant: string;
  readonly agent: string;
  readonly session: string;
  /** Empty when the agent acts for nobody. */
  readonly user: string;
};

export type Ref = { readonly session: string; readonly callId: string };

/** What an approval is bound to. A yes is a yes to exactly this, from exactly these people. */
export type Binding = {
  readonly approvalId: string;
  readonly ref: Ref;
  readonly principal: Principal;
  readonly tool: string;
  readonly toolDigest: string;
  /** SHA-256 of the canonical arguments (RFC 8785), hex. */
  readonly argumentsHash: string;
  readonly policyRevision: string;
  readonly need: Need;
};

export const IMPACTS = ["low", "medium", "high"] as const;
export type Impact = (typeof IMPACTS)[number];

export type Amount = { readonly unit: string; readonly value: bigint };

/** What a reviewer is shown besides. */
export type Shown = {
  /** What will happen; empty where the tool's manifest has no sentence for it. */
  readonly sentence: string;
  readonly toolDescription: string;
  readonly impact: Impact;
  readonly effects: readonly string[];
  /** Secrets masked, so its hash is not argumentsHash. */
  readonly argumentsJson: string;
  /** Names of the arguments that matter most. */
  readonly firstArguments: readonly string[];
  readonly reasons: readonly string[];
  readonly rules: readonly string[];
  readonly price: readonly Amount[];
  readonly budgets: readonly Budget[];
  readonly labels: readonly string[];
  /** What the session did last, oldest first. */
  readonly steps: readonly Step[];
};

/** As it stood once this call was held against it. */
export type Budget = {
  readonly name: string;
  readonly scope: string;
  readonly subject: string;
  readonly unit: string;
  readonly limit: bigint;
  readonly available: bigint;
};

export type Step = { readonly tool: string; readonly outcome: string; readonly timeMs: number };

export type Vote = {
  readonly reviewer: string;
  /** Whom they stood in for; empty: they answered for themselves. */
  readonly as: string;
  /** Of the groups asked, those whose yes this may be. */
  readonly groups: readonly string[];
  readonly approve: boolean;
  /** What they said yes or no to. */
  readonly argumentsHash: string;
  readonly comment: string;
  /** Sooner than anybody could have read it. */
  readonly hasty: boolean;
  readonly timeMs: number;
};

/** A reviewer's own arguments: from then on these are what would run. */
export type Edit = {
  readonly reviewer: string;
  /** Canonical, secrets masked. */
  readonly argumentsJson: string;
  readonly argumentsHash: string;
  readonly timeMs: number;
};

export type Question = {
  readonly questionId: string;
  readonly reviewer: string;
  readonly text: string;
  readonly timeMs: number;
  /** Written by the agent. */
  readonly answer: { readonly text: string; readonly timeMs: number } | undefined;
};

export type End = "approved" | "rejected" | "expired" | "cancelled";

/** `by` is the service that withdrew it, or who voted; empty when it expired. */
export type Ending = {
  readonly end: End;
  readonly by: readonly string[];
  readonly reason: string;
  /** The grant that said yes; empty when people did. */
  readonly grantId: string;
  readonly timeMs: number;
};

export type NewApproval = {
  readonly binding: Binding;
  readonly shown: Shown;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
};

/** Pending as long as it has no ending. */
export type Approval = NewApproval & {
  readonly votes: readonly Vote[];
  readonly edit: Edit | undefined;
  readonly questions: readonly Question[];
  /** Identical calls of the session that wait for the same answer. */
  readonly joined: readonly Binding[];
  /** Counts what people can see change. */
  readonly version: number;
  readonly ending: Ending | undefined;
};

/** What an approval's yes would run: the hash as asked, or as a reviewer has changed it. */
export function currentHash({ binding, edit }: Pick<Approval, "binding" | "edit">): string {
  return edit?.argumentsHash ?? binding.argumentsHash;
}

/** A yes to calls that are still to come: of one session, alike but for numbers within bounds. */
export type Grant = {
  /** The approval it was given with. */
  readonly grantId: string;
  readonly by: string;
  readonly binding: Binding;
  /** What would have run: secrets masked. */
  readonly argumentsJson: string;
  readonly argumentsHash: string;
  readonly bounds: readonly Bound[];
  /** What the session had touched by then: once it has touched more, people are asked again. */
  readonly labels: readonly string[];
  readonly uses: number;
  readonly used: number;
  readonly untilMs: number;
  /** Empty: not revoked. */
  readonly revokedBy: string;
};

export type Bound = { readonly argument: string; readonly max: number };

export type Absence = { readonly reviewer: string; readonly untilMs: number; readonly standIn: string };

/** A message about an approval in some channel, as it was last brought up to date. */
export type Told = {
  /** Where it is: the channel's own words; empty while it is on its way. */
  readonly address: string;
  /** The approval's version that it shows. */
  readonly shows: number;
  readonly reminders: number;
  readonly timeMs: number;
};

/** What happened; the journal keeps these for ever. */
export type Event =
  | { readonly kind: "requested"; readonly approval: NewApproval }
  | { readonly kind: "joined"; readonly approvalId: string; readonly binding: Binding }
  | { readonly kind: "voted"; readonly approvalId: string; readonly vote: Vote }
  | { readonly kind: "edited"; readonly approvalId: string; readonly edit: Edit }
  | { readonly kind: "asked"; readonly approvalId: string; readonly question: Question }
  | {
      readonly kind: "answered";
      readonly approvalId: string;
      readonly questionId: string;
      readonly text: string;
      readonly timeMs: number;
    }
  /** Says by itself all that whoever watches resolutions needs, long after the state has forgotten it. */
  | {
      readonly kind: "resolved";
      readonly binding: Binding;
      readonly createdAtMs: number;
      readonly expiresAtMs: number;
      readonly votes: readonly Vote[];
      readonly edit: Edit | undefined;
      readonly ending: Ending;
    }
  | { readonly kind: "granted"; readonly grant: Grant }
  | { readonly kind: "revoked"; readonly grantId: string; readonly by: string; readonly timeMs: number }
  | { readonly kind: "absent"; readonly absence: Absence }
  /** A thing that may be used once was used: a login link, a signed request. */
  | { readonly kind: "claimed"; readonly key: string; readonly attempt: string; readonly untilMs: number }
  | { readonly kind: "told"; readonly approvalId: string; readonly channel: string; readonly told: Told };

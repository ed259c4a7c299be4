import { type Measures, mergeMeasures } from "./measures.ts";

/**
 * From the rules that matched to a decision. Pure: what matched comes in as data.
 *
 * 1. deny > require_approval > allow. No rule, mode or flag outranks this order.
 * 2. Nothing matches = deny.
 * 3. A rule whose condition could not be evaluated counts as a deny that matched, whatever its own outcome.
 * 4. The order of the rules never matters: all that match are weighed, and obligations merge by the strictest.
 */

export const OUTCOMES = ["allow", "require_approval", "deny"] as const;
export type Outcome = (typeof OUTCOMES)[number];

export type Limits = {
  readonly wallMs?: number;
  readonly cpuMs?: number;
  readonly memoryBytes?: number;
  readonly outputBytes?: number;
  readonly pids?: number;
};

/** An absent field imposes nothing. */
export type Obligations = Measures & {
  readonly limits?: Limits;
  /** All of them have to say yes, in alphabetical order. */
  readonly approverGroups?: readonly string[];
  readonly quorum?: number;
  readonly approvalTtlMs?: number;
  /** The user the agent acts for may answer: a confirmation, not four eyes. */
  readonly confirm?: boolean;
  /** Whose members may answer too after so long. */
  readonly escalateGroup?: string;
  readonly escalateAfterMs?: number;
};

/** What deciding needs of a rule. */
export type WeighedRule = {
  /** As `policy.csv:12`. */
  readonly at: string;
  /** Its place among all rules: reasons are listed in this order. */
  readonly order: number;
  readonly outcome: Outcome;
  readonly reason: string;
  readonly obligations: Obligations;
};

export type Match =
  | { readonly kind: "holds"; readonly rule: WeighedRule }
  /** The condition threw or read what is not there. */
  | { readonly kind: "broken"; readonly rule: WeighedRule; readonly why: string };

export type Decision = {
  readonly outcome: Outcome;
  /** One sentence each. */
  readonly reasons: readonly string[];
  /** Every rule that matched; those that decided come first. */
  readonly matchedRules: readonly string[];
  readonly obligations: Obligations;
};

const NONE: Obligations = {};

/** `subject` as `agent:support` or `user:olga`. */
export function decide(
  asked: { readonly subject: string; readonly tool: string },
  matches: readonly Match[],
): Decision {
  if (matches.length === 0) {
    return {
      outcome: "deny",
      reasons: [`No rule allows ${asked.subject.replace(":", " ")} to call ${asked.tool}.`],
      matchedRules: [],
      obligations: NONE,
    };
  }
  const sorted = matches.toSorted((a, b) => a.rule.order - b.rule.order);
  const outcome = strictest(sorted.map(outcomeOf));
  const deciding = sorted.filter((match) => outcomeOf(match) === outcome);
  const decision: Decision = {
    outcome,
    reasons: [...new Set(deciding.map(reasonOf))],
    matchedRules: [...deciding, ...sorted.filter((match) => outcomeOf(match) !== outcome)].map(
      (match) => match.rule.at,
    ),
    obligations: outcome === "deny" ? NONE : mergeObligations(sorted.map((match) => match.rule.obligations)),
  };
  if (outcome !== "require_approval") return decision;
  return { ...decision, obligations: { ...decision.obligations, ...whoElse(deciding.map(({ rule }) => rule)) } };
}

/** Who may answer besides: only whom every rule that asks lets in. */
function whoElse(rules: readonly WeighedRule[]): Obligations {
  const confirm = rules.every(({ obligations }) => obligations.confirm === true);
  const groups = new Set(rules.map(({ obligations }) => obligations.escalateGroup));
  const [escalateGroup] = groups;
  const afters = rules.flatMap(({ obligations }) => obligations.escalateAfterMs ?? []);
  return {
    ...(confirm && { confirm }),
    ...(groups.size === 1 && escalateGroup !== undefined && { escalateGroup, escalateAfterMs: Math.max(0, ...afters) }),
  };
}

/** Limits and time: the smallest. Quorum: the largest. Groups: all. Limits of every rule that matched bind, also of an allow below. */
export function mergeObligations(all: readonly Obligations[]): Obligations {
  const limits: { -readonly [K in keyof Limits]: Limits[K] } = {};
  for (const { limits: more } of all) {
    for (const key of Object.keys(more ?? {}) as (keyof Limits)[]) {
      limits[key] = Math.min(limits[key] ?? Number.POSITIVE_INFINITY, more?.[key] ?? Number.POSITIVE_INFINITY);
    }
  }
  const groups = [...new Set(all.flatMap((one) => one.approverGroups ?? []))].toSorted((a, b) => (a < b ? -1 : 1));
  const quorums = all.flatMap((one) => one.quorum ?? []);
  const ttls = all.flatMap((one) => one.approvalTtlMs ?? []);
  return {
    ...mergeMeasures(all),
    ...(Object.keys(limits).length > 0 && { limits }),
    ...(groups.length > 0 && { approverGroups: groups }),
    ...(quorums.length > 0 && { quorum: Math.max(...quorums) }),
    ...(ttls.length > 0 && { approvalTtlMs: Math.min(...ttls) }),
  };
}

function strictest(outcomes: readonly Outcome[]): Outcome {
  return outcomes.reduce((a, b) => (OUTCOMES.indexOf(b) > OUTCOMES.indexOf(a) ? b : a), "allow");
}

function outcomeOf(match: Match): Outcome {
  switch (match.kind) {
    case "holds":
      return match.rule.outcome;
    case "broken":
      return "deny";
  }
}

function reasonOf(match: Match): string {
  switch (match.kind) {
    case "holds":
      return match.rule.reason;
    case "broken":
      return `Rule ${match.rule.at} could not be evaluated: ${match.why}. A call is denied when that happens.`;
  }
}

import type { Rule } from "./casbin.ts";
import { decide, type Match, type Outcome } from "./decide.ts";
import { subjectOf } from "./facts.ts";
import type { Policy } from "./load.ts";
import { matchOf, type Weighed } from "./shards.ts";
import { failureOf, type TestResult } from "./table-tests.ts";

/**
 * Do the table tests hold the rules in place? A rule is covered when it matches in some test. A mutant is the policy with
 * one rule changed; it is noticed when some test fails on it. Rules are asked each by itself (shards.ts, 3), so a mutant
 * needs no policy of its own: the answers are the same, and are weighed again.
 */
export type Coverage = {
  readonly rules: number;
  /** Rules that match in no test, as file:line. */
  readonly uncovered: readonly string[];
  readonly mutants: number;
  /** Mutants that no test notices. */
  readonly survivors: readonly Mutant[];
};

export type Mutant = { readonly at: string; readonly change: (typeof CHANGES)[number]; readonly text: string };

/** `drop`: without the rule. `flip`: allow for deny, deny for the others. `widen`: without its condition. */
const CHANGES = ["drop", "flip", "widen"] as const;

export function coverageOf(policy: Policy, results: readonly TestResult[]): Coverage {
  const testsOf = new Map<Rule, TestResult[]>();
  const covered = new Set<Rule>();
  for (const result of results) {
    for (const { rule, answer } of result.weighed) {
      const known = testsOf.get(rule);
      if (known === undefined) testsOf.set(rule, [result]);
      else known.push(result);
      if (answer.kind === "holds") covered.add(rule);
    }
  }
  const survivors: Mutant[] = [];
  let mutants = 0;
  for (const rule of policy.rules) {
    for (const change of CHANGES) {
      if (change === "widen" && rule.when.text === "true") continue;
      mutants++;
      const noticed = (testsOf.get(rule) ?? []).some((result) => isNoticed(result, rule, change));
      if (!noticed) survivors.push({ at: rule.at, change, text: TEXTS[change](rule) });
    }
  }
  const uncovered = policy.rules.filter((rule) => !covered.has(rule)).map(({ at }) => at);
  return { rules: policy.rules.length, uncovered, mutants, survivors };
}

const TEXTS: Readonly<Record<Mutant["change"], (rule: Rule) => string>> = {
  drop: () => "without the rule",
  flip: ({ outcome }) => `with ${flipped(outcome)} in place of ${outcome}`,
  widen: ({ when }) => `with true in place of ${when.text}`,
};

function isNoticed(result: TestResult, rule: Rule, change: Mutant["change"]): boolean {
  if (result.failure !== undefined) return false; // it fails with or without
  const { test } = result;
  const weighed = result.weighed.flatMap((one) => (one.rule === rule ? mutate(one, change) : [one]));
  const matches = weighed
    .map(({ rule: asked, answer }) => matchOf(asked, answer))
    .filter((m): m is Match => m !== undefined);
  const decision = decide({ subject: subjectOf(test.facts), tool: test.facts.tool.name }, matches);
  return failureOf(test, decision, weighed) !== undefined;
}

function mutate({ rule, answer }: Weighed, change: Mutant["change"]): Weighed[] {
  switch (change) {
    case "drop":
      return [];
    case "flip":
      return [{ rule: { ...rule, outcome: flipped(rule.outcome) }, answer }];
    case "widen":
      return [{ rule, answer: { kind: "holds" } }];
  }
}

function flipped(outcome: Outcome): Outcome {
  return outcome === "deny" ? "allow" : "deny";
}

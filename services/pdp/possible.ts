import type { Outcome } from "./decide.ts";
import { type Facts, NOTHING_SPENT, type ToolFacts } from "./facts.ts";
import type { Policy } from "./load.ts";

/** The most that somebody could be given, whatever the arguments turn out to be, and what it depends on. */
export type Possibility = {
  /** `agent:<name>`, `user:<name>`, or `*` for everybody who is not named. */
  readonly subject: string;
  readonly tool: string;
  readonly most: Outcome;
  readonly conditions: readonly string[];
};

/** Everybody whom the tenant's rules and roles name, in order, and `*` for the others. */
export function subjectsOf(policy: Policy, tenant: string): string[] {
  const names = new Set<string>();
  const add = (name: string) => {
    if (name.startsWith("agent:") || name.startsWith("user:")) names.add(name);
  };
  for (const { from, tenant: where } of policy.roles) if (where === tenant) add(from);
  for (const { subject, tenant: where } of policy.rules) if (where === tenant) add(subject);
  return [...[...names].toSorted((a, b) => (a < b ? -1 : 1)), "*"];
}

export function possibility(
  policy: Policy,
  tenant: string,
  subject: string,
  tool: ToolFacts,
  timeMs: number,
): Possibility {
  const facts = factsOf(tenant, subject, tool, timeMs);
  const most = policy.decide(facts).outcome;
  const conditions = policy.compiled.weigh(facts).flatMap(({ rule, answer }) => {
    if (rule.when.text === "true" || answer.kind === "fails") return [];
    return [
      `${rule.outcome === "deny" ? "unless" : rule.outcome === "allow" ? "if" : "asking people if"} ${rule.when.text} (${rule.at})`,
    ];
  });
  return { subject, tool: tool.name, most, conditions };
}

/** A first call of a fresh session, its arguments unknown. */
function factsOf(tenant: string, subject: string, tool: ToolFacts, timeMs: number): Facts {
  const [kind, name = ""] = subject.split(/:(.*)/s);
  return {
    ...{ tenant, tool, timeMs },
    // No rule can name an agent so: it is everybody and nobody.
    agent: kind === "agent" ? name : kind === "user" ? "" : "*",
    user: kind === "user" ? name : "",
    session: "",
    args: undefined,
    labels: [],
    loop: "clear",
    chain: [],
    spent: NOTHING_SPENT,
  };
}

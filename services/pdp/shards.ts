import { breathe } from "./breathe.ts";
import { type CachedPlace, DecisionCache } from "./cache.ts";
import { type Answer, type Judge, type Link, type Model, newJudge, type Rule } from "./casbin.ts";
import { type Decision, decide, type Match } from "./decide.ts";
import { type Facts, subjectOf, toRequest } from "./facts.ts";

/**
 * The index. Rules lie in shards by tenant, subject and tool, so that Casbin's matcher is asked about those only that
 * could match: cost follows them, not the rules that exist.
 *
 * 1. A compiled policy is never changed: a new one is built beside it and the pointer swapped.
 * 2. The index may offer a rule that does not match, never leave out one that does: hence the matcher is fixed.
 * 3. Every rule offered is asked, each by itself: one that throws spoils only its own answer (decide.ts, 3).
 * 4. What is remembered of a decision is found again only by the same values of every fact that its candidates read.
 */

/** A rule that was asked, and what the matcher said. */
export type Weighed = { readonly rule: Rule; readonly answer: Answer };

export type CompiledPolicy = {
  readonly decide: (facts: Facts) => Decision;
  /** Every candidate with its answer; never from memory. */
  readonly weigh: (facts: Facts) => readonly Weighed[];
  /** What the matcher says of any rule, also of one that is not in the policy. */
  readonly judge: (facts: Facts, rule: Rule) => Answer;
  /** What a name belongs to in a tenant, itself first: roles of agents and users, groups of tools. */
  readonly rolesOf: (tenant: string, subject: string) => readonly string[];
  readonly groupsOf: (tenant: string, tool: string) => readonly string[];
};

export type CompileOptions = {
  /** How many decisions are remembered; 0 for none. */
  readonly remembered?: number;
};

const REMEMBERED = 50_000;

type Shard = Map<string, Map<string, Rule[]>>;

export async function compilePolicy(
  model: Model,
  rules: readonly Rule[],
  roles: readonly Link[],
  groups: readonly Link[],
  { remembered = REMEMBERED }: CompileOptions = {},
): Promise<CompiledPolicy> {
  const judge = await newJudge(model, roles, groups);
  const shards = await shardsOf(rules);
  const rolesOf = await closures(roles);
  const groupsOf = await closures(groups);

  const candidatesOf = ({ tenant, tool, ...who }: Facts): readonly Rule[] => {
    const shard = shards.get(tenant);
    if (shard === undefined) return [];
    const candidates: Rule[] = [];
    const toolKeys = toolKeysOf(tool.name, [
      ...tool.groups.map((group) => `group:${group}`),
      ...groupsOf(tenant, tool.name),
    ]);
    for (const subject of ["*", ...rolesOf(tenant, subjectOf(who))]) {
      const byTool = shard.get(subject);
      if (byTool === undefined) continue;
      for (const key of toolKeys) for (const rule of byTool.get(key) ?? []) candidates.push(rule);
    }
    return candidates;
  };

  const cache = remembered > 0 ? new DecisionCache(candidatesOf, remembered) : undefined;
  return {
    decide: (facts) => {
      const request = toRequest(facts);
      const place = facts.args === undefined ? undefined : cache?.find(facts, request);
      if (place?.decision !== undefined) return place.decision;
      return remember(place, weighAll(judge, request, place?.candidates ?? candidatesOf(facts), facts));
    },
    weigh: (facts) => {
      const asked = judge(toRequest(facts));
      return candidatesOf(facts).map((rule) => ({ rule, answer: asked(rule) }));
    },
    judge: (facts, rule) => judge(toRequest(facts))(rule),
    rolesOf,
    groupsOf,
  };
}

function remember(place: CachedPlace | undefined, decision: Decision): Decision {
  place?.keep(decision);
  return decision;
}

function weighAll(judge: Judge, request: Record<string, unknown>, candidates: readonly Rule[], facts: Facts): Decision {
  const asked = judge(request);
  const matches: Match[] = [];
  for (const rule of candidates) {
    const match = matchOf(rule, asked(rule));
    if (match !== undefined) matches.push(match);
  }
  return decide({ subject: subjectOf(facts), tool: facts.tool.name }, matches);
}

/** What depends on arguments that are not known may go the caller's way: a yes counts, a no does not. */
export function matchOf(rule: Rule, answer: Answer): Match | undefined {
  switch (answer.kind) {
    case "holds":
      return { kind: "holds", rule };
    case "broken":
      return { kind: "broken", rule, why: answer.why };
    case "unknown":
      return rule.outcome === "deny" ? undefined : { kind: "holds", rule };
    case "fails":
      return undefined;
  }
}

async function shardsOf(rules: readonly Rule[]): Promise<ReadonlyMap<string, Shard>> {
  const shards = new Map<string, Shard>();
  for (const rule of rules) {
    const shard = getOr(shards, rule.tenant, (): Shard => new Map());
    const byTool = getOr(shard, rule.subject, (): Map<string, Rule[]> => new Map());
    getOr(byTool, rule.tool, (): Rule[] => []).push(rule);
    await breathe();
  }
  return shards;
}

/** Every pattern that this tool answers to. */
export function toolKeysOf(tool: string, groups: readonly string[]): ReadonlySet<string> {
  const keys = new Set([tool, "*", ...groups]);
  for (let dot = tool.indexOf("."); dot >= 0; dot = tool.indexOf(".", dot + 1)) keys.add(`${tool.slice(0, dot)}.*`);
  return keys;
}

/** A name and all it belongs to, directly or through others, by tenant. */
async function closures(links: readonly Link[]): Promise<(tenant: string, from: string) => readonly string[]> {
  const key = (tenant: string, name: string): string => `${tenant} ${name}`;
  const direct = new Map<string, string[]>();
  for (const { from, to, tenant } of links) getOr(direct, key(tenant, from), () => []).push(to);
  const known = new Map<string, readonly string[]>();
  for (const { from, tenant } of links) {
    if (known.has(key(tenant, from))) continue;
    const reached = new Set([from]);
    for (const name of reached) for (const next of direct.get(key(tenant, name)) ?? []) reached.add(next);
    known.set(key(tenant, from), [...reached]);
    await breathe();
  }
  return (tenant, from) => known.get(key(tenant, from)) ?? [from];
}

function getOr<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = make();
  map.set(key, made);
  return made;
}

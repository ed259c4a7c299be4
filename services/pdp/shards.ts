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
  /** Every candidate with its answer, in the order of the files; never from memory. */
  readonly weigh: (facts: Facts) => readonly Weighed[];
  /** What the matcher says of any rule, also of one that is not in the policy. */
  readonly judge: (facts: Facts, rule: Rule) => Answer;
  /** What a name belongs to in a tenant, itself first: roles of agents and users, groups of tools. */
  readonly rolesOf: (tenant: string, subject: string) => ReadonlySet<string>;
  readonly groupsOf: (tenant: string, tool: string) => ReadonlySet<string>;
};

export type CompileOptions = {
  /** How many decisions are remembered; 0 for none. */
  readonly remembered?: number;
};

const REMEMBERED = 50_000;

/** All that a tenant's decisions need. */
type Shard = {
  /** By subject, then by tool. */
  readonly rules: Map<string, Map<string, Rule[]>>;
  /** A name and all that it belongs to. */
  readonly roles: Map<string, ReadonlySet<string>>;
  readonly groups: Map<string, ReadonlySet<string>>;
};

export async function compilePolicy(
  model: Model,
  rules: readonly Rule[],
  roles: readonly Link[],
  groups: readonly Link[],
  { remembered = REMEMBERED }: CompileOptions = {},
): Promise<CompiledPolicy> {
  const shards = await shardsOf(rules, roles, groups);
  const rolesOf = (tenant: string, from: string) => shards.get(tenant)?.roles.get(from) ?? new Set([from]);
  const groupsOf = (tenant: string, from: string) => shards.get(tenant)?.groups.get(from) ?? new Set([from]);
  const judge = newJudge(
    model,
    (from, to, tenant) => from === to || shards.get(tenant)?.roles.get(from)?.has(to) === true,
    (from, to, tenant) => from === to || shards.get(tenant)?.groups.get(from)?.has(to) === true,
  );
  const cache = remembered > 0 ? new DecisionCache((facts) => candidatesOf(shards, facts), remembered) : undefined;
  return {
    decide: (facts) => {
      const request = toRequest(facts);
      const place = facts.args === undefined ? undefined : cache?.find(facts, request);
      if (place?.decision !== undefined) return place.decision;
      return remember(place, weighAll(judge, request, place?.candidates ?? candidatesOf(shards, facts), facts));
    },
    weigh: (facts) => {
      const asked = judge(toRequest(facts));
      const inOrder = candidatesOf(shards, facts).toSorted((a, b) => a.order - b.order);
      return inOrder.map((rule) => ({ rule, answer: asked(rule) }));
    },
    judge: (facts, rule) => judge(toRequest(facts))(rule),
    rolesOf,
    groupsOf,
  };
}

function candidatesOf(shards: ReadonlyMap<string, Shard>, facts: Facts): readonly Rule[] {
  const shard = shards.get(facts.tenant);
  if (shard === undefined) return [];
  const candidates: Rule[] = [];
  const { name, groups } = facts.tool;
  const toolKeys = toolKeysOf(name, groups.map(groupKey), shard.groups.get(name));
  const add = (subject: string): void => {
    const byTool = shard.rules.get(subject);
    if (byTool === undefined) return;
    for (const key of toolKeys) {
      const found = byTool.get(key);
      if (found !== undefined) for (const rule of found) candidates.push(rule);
    }
  };
  add("*");
  const subject = subjectOf(facts);
  const roles = shard.roles.get(subject);
  if (roles === undefined) add(subject);
  else for (const role of roles) add(role);
  return candidates;
}

function groupKey(group: string): string {
  return `group:${group}`;
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

async function shardsOf(
  rules: readonly Rule[],
  roles: readonly Link[],
  groups: readonly Link[],
): Promise<ReadonlyMap<string, Shard>> {
  const shards = new Map<string, Shard>();
  const shardOf = (tenant: string): Shard =>
    getOr(shards, tenant, () => ({ rules: new Map(), roles: new Map(), groups: new Map() }));
  for (const rule of rules) {
    const byTool = getOr(shardOf(rule.tenant).rules, rule.subject, () => new Map<string, Rule[]>());
    getOr(byTool, rule.tool, (): Rule[] => []).push(rule);
    await breathe();
  }
  for (const [tenant, known] of await closures(roles))
    for (const [from, reached] of known) shardOf(tenant).roles.set(from, reached);
  for (const [tenant, known] of await closures(groups))
    for (const [from, reached] of known) shardOf(tenant).groups.set(from, reached);
  return shards;
}

/** Every pattern that this tool answers to: its name, prefixes of it, its manifest's groups and the policy's. */
export function toolKeysOf(tool: string, own: readonly string[], groups: Iterable<string> = []): ReadonlySet<string> {
  const keys = new Set([tool, "*", ...own]);
  for (let dot = tool.indexOf("."); dot >= 0; dot = tool.indexOf(".", dot + 1)) keys.add(`${tool.slice(0, dot)}.*`);
  for (const group of groups) keys.add(group);
  return keys;
}

/** By tenant: a name and all it belongs to, directly or through others, itself first. */
async function closures(links: readonly Link[]): Promise<Map<string, Map<string, ReadonlySet<string>>>> {
  const direct = new Map<string, Map<string, string[]>>();
  for (const { from, to, tenant } of links) {
    const ofTenant = getOr(direct, tenant, () => new Map<string, string[]>());
    getOr(ofTenant, from, (): string[] => []).push(to);
    await breathe();
  }
  const known = new Map<string, Map<string, ReadonlySet<string>>>();
  for (const [tenant, ofTenant] of direct) {
    const reachedBy = getOr(known, tenant, () => new Map<string, ReadonlySet<string>>());
    for (const from of ofTenant.keys()) {
      const reached = new Set([from]);
      for (const name of reached) for (const next of ofTenant.get(name) ?? []) reached.add(next);
      reachedBy.set(from, reached);
      await breathe();
    }
  }
  return known;
}

function getOr<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = make();
  map.set(key, made);
  return made;
}

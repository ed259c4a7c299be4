import { DefaultRoleManager, newModelFromString } from "casbin";
import { type Decision, decide, type Match, type WeighedRule } from "./decide.ts";
import { call, type Expression, evaluateExpression, parseExpression } from "./expression.ts";
import { type Facts, TOKENS, toRequest } from "./facts.ts";
import { CHECKED, ConditionError, FUNCTIONS, glob } from "./functions.ts";

/**
 * Casbin, fed with few rules at a time. The model's matcher is the only judge of whether a rule matches; an index over
 * tenant, subject and tool chooses which rules it is asked about, so cost follows the rules that could match.
 *
 * 1. A compiled policy is never changed: a new one is built beside it and the pointer swapped.
 * 2. The index may offer a rule that does not match, never leave out one that does: hence the matcher is fixed.
 * 3. Every rule offered is asked, each by itself: one that throws spoils only its own answer (decide.ts, 3).
 */

export type Rule = WeighedRule & {
  readonly tenant: string;
  /** `*`, `agent:<name>` or `role:<name>`. */
  readonly subject: string;
  /** `*`, `orders.refund`, `orders.*` or `group:<name>`. */
  readonly tool: string;
  readonly when: Expression;
};

/** In a tenant, `from` (an agent, a role, a tool, a group) belongs to `to` (a role, a group). */
export type Link = { readonly from: string; readonly to: string; readonly tenant: string };

export type CompiledPolicy = { readonly decide: (facts: Facts) => Decision };

/** A model that is as the index needs it; `text` is its matcher, as Casbin spells it. */
export type Model = { readonly text: string; readonly matcher: Expression };

export class ModelError extends Error {
  override readonly name = "ModelError";
  /** The definition at fault, as `m` or `g2`. */
  readonly key: string;
  constructor(key: string, message: string) {
    super(message);
    this.key = key;
  }
}

/** How deep Casbin follows roles; the loader refuses deeper chains. */
export const MAX_ROLE_DEPTH = 10;

export const RULE_COLUMNS = ["tenant", "subject", "tool", "outcome", "when", "reason", "obligations"] as const;

/** What the index relies on, as Casbin spells it. */
const DEFINITIONS: readonly (readonly [section: string, key: string, wanted: string])[] = [
  ["r", "r", Object.keys(TOKENS).join(", ")],
  ["p", "p", RULE_COLUMNS.join(", ")],
  ["g", "g", "_, _, _"],
  ["g", "g2", "_, _, _"],
  ["e", "e", "some(where (p_eft == allow))"],
  [
    "m",
    "m",
    'r_tenant == p_tenant && (p_subject == "*" || g(r_subject, p_subject, r_tenant)) && ' +
      "(toolMatch(r_tool, p_tool) || g2(r_tool, p_tool, r_tenant) || groupMatch(r_groups, p_tool)) && eval(p_when)",
  ],
];

/** @throws ModelError naming the definition that is not as the index needs it. */
export function parseModel(text: string): Model {
  let model: ReturnType<typeof newModelFromString>;
  try {
    model = newModelFromString(text);
  } catch (error) {
    throw new ModelError("", `Casbin cannot read it: ${error instanceof Error ? error.message : String(error)}.`);
  }
  const squeeze = (value: string | undefined): string => (value ?? "").replaceAll(/\s/g, "");
  for (const [section, key, wanted] of DEFINITIONS) {
    if (squeeze(model.model.get(section)?.get(key)?.value) !== squeeze(wanted)) {
      throw new ModelError(key, `Write ${key} = ${wanted.replaceAll(/\b([rp])_/g, "$1.")}: the index relies on it.`);
    }
  }
  const matcher = squeeze(model.model.get("m")?.get("m")?.value);
  return { text: matcher, matcher: parseExpression(matcher) };
}

type Shard = Map<string, Map<string, Rule[]>>;

export async function compilePolicy(
  model: Model,
  rules: readonly Rule[],
  roles: readonly Link[],
  groups: readonly Link[],
): Promise<CompiledPolicy> {
  const functions = {
    ...CHECKED,
    ...safeFunctions(),
    ...toolFunctions(),
    g: await linked(roles),
    g2: await linked(groups),
  };
  const shards = new Map<string, Shard>();
  for (const rule of rules) {
    const shard = getOr(shards, rule.tenant, (): Shard => new Map());
    const byTool = getOr(shard, rule.subject, (): Map<string, Rule[]> => new Map());
    getOr(byTool, rule.tool, (): Rule[] => []).push(rule);
  }
  const matcher = withCondition(model.matcher);
  const rolesOf = closures(roles);
  const groupsOf = closures(groups);
  return {
    decide(facts) {
      const { agent, tenant, tool } = facts;
      const context: Context = { ...functions, ...toRequest(facts), p_tenant: "", p_subject: "", p_tool: "" };
      if (facts.args === undefined) Object.defineProperty(context, "r_args", { get: refuseUnknownArguments });
      const matches: Match[] = [];
      const shard = shards.get(tenant);
      if (shard !== undefined) {
        const toolKeys = toolKeysOf(tool.name, [
          ...tool.groups.map((group) => `group:${group}`),
          ...groupsOf(tenant, tool.name),
        ]);
        for (const subject of ["*", ...rolesOf(tenant, `agent:${agent}`)]) {
          const byTool = shard.get(subject);
          if (byTool === undefined) continue;
          for (const key of toolKeys) for (const rule of byTool.get(key) ?? []) ask(matcher, rule, context, matches);
        }
      }
      return decide({ agent, tool: tool.name }, matches);
    },
  };
}

class UnknownArguments extends Error {}

function refuseUnknownArguments(): never {
  throw new UnknownArguments();
}

/** What the matcher reads; its p_ values are the rule's that is asked about. */
type Context = { [name: string]: unknown; p_tenant: string; p_subject: string; p_tool: string };

function ask(matcher: Expression, rule: Rule, context: Context, matches: Match[]): void {
  context.p_tenant = rule.tenant;
  context.p_subject = rule.subject;
  context.p_tool = rule.tool;
  context[WHEN] = () => evaluateExpression(rule.when, context);
  try {
    const answer = evaluateExpression(matcher, context);
    if (answer === false) return;
    matches.push(
      answer === true ? { kind: "holds", rule } : { kind: "broken", rule, why: "it is neither true nor false" },
    );
  } catch (error) {
    if (error instanceof UnknownArguments) {
      // What depends on them may go the caller's way: a yes counts, a no does not.
      if (rule.outcome !== "deny") matches.push({ kind: "holds", rule });
      return;
    }
    const why = error instanceof ConditionError ? error.message : "it failed";
    matches.push({ kind: "broken", rule, why });
  }
}

/** Not a name that a model could spell. */
const WHEN = "$when";

/** The model's matcher, the same for every rule: eval(p_when) becomes a call of what the rule's condition is. */
function withCondition(node: Expression): Expression {
  switch (node.type) {
    case "CallExpression":
      if (node.callee.type === "Identifier" && node.callee.name === "eval") return call(WHEN);
      return node;
    case "BinaryExpression":
    case "LogicalExpression":
      return { ...node, left: withCondition(node.left), right: withCondition(node.right) };
    case "Identifier":
    case "Literal":
      return node;
    case "MemberExpression":
    case "UnaryExpression":
    case "ConditionalExpression":
    case "ArrayExpression":
    case "ThisExpression":
    case "Compound":
      throw new Error(`the matcher has a ${node.type}, which parseModel does not let through`);
  }
}

/** What the model's own matcher calls, besides g and g2. */
export function toolFunctions() {
  return {
    toolMatch: (tool: string, pattern: string): boolean => !pattern.startsWith("group:") && glob(tool, pattern),
    groupMatch: (groups: readonly string[], pattern: string): boolean =>
      pattern.startsWith("group:") && groups.includes(pattern.slice("group:".length)),
  };
}

function safeFunctions(): Record<string, (...values: never[]) => boolean> {
  return Object.fromEntries(Object.entries(FUNCTIONS).map(([name, safe]) => [name, safe.call]));
}

/** Casbin's g: does `from` reach `to` in this tenant? Not its memoised form, which keeps every name it is asked. */
async function linked(links: readonly Link[]): Promise<(from: string, to: string, tenant: string) => boolean> {
  const manager = new DefaultRoleManager(MAX_ROLE_DEPTH);
  for (const { from, to, tenant } of links) await manager.addLink(from, to, tenant);
  return (from, to, tenant) => manager.syncedHasLink(from, to, tenant);
}

/** Every pattern that this tool answers to. */
function toolKeysOf(tool: string, groups: readonly string[]): ReadonlySet<string> {
  const keys = new Set([tool, "*", ...groups]);
  for (let dot = tool.indexOf("."); dot >= 0; dot = tool.indexOf(".", dot + 1)) keys.add(`${tool.slice(0, dot)}.*`);
  return keys;
}

/** A name and all it belongs to, directly or through others, by tenant. */
function closures(links: readonly Link[]): (tenant: string, from: string) => readonly string[] {
  const key = (tenant: string, name: string): string => `${tenant} ${name}`;
  const direct = new Map<string, string[]>();
  for (const { from, to, tenant } of links) getOr(direct, key(tenant, from), () => []).push(to);
  const known = new Map<string, readonly string[]>();
  for (const { from, tenant } of links) {
    const reached = new Set([from]);
    for (const name of reached) for (const next of direct.get(key(tenant, name)) ?? []) reached.add(next);
    known.set(key(tenant, from), [...reached]);
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

import type { FileProblem } from "../shared/yaml-file.ts";
import { breathe } from "./breathe.ts";
import type { Rule } from "./casbin.ts";
import type { Outcome } from "./decide.ts";
import type { ToolFacts } from "./facts.ts";
import type { Policy } from "./load.ts";
import { toolKeysOf } from "./shards.ts";

/** What reads well and is probably not meant. An error stops a push; a warning is shown before it. */
export type Finding = FileProblem & { readonly severity: "error" | "warning" };

/** What changing the policy itself is called, so that rules can say who may. */
export const POLICY_ACTIONS = ["policy.push", "policy.rollback", "policy.approve", "policy.shadow"] as const;
export type PolicyAction = (typeof POLICY_ACTIONS)[number];

/** Warnings beyond are left out; an error is always said. */
const MAX_FINDINGS = 200;

/** `tools`: those there are; undefined when they are not known, and then nothing is said of them. */
export async function checkPolicy(policy: Policy, tools: readonly ToolFacts[] | undefined): Promise<Finding[]> {
  const found: Finding[] = [];
  const say: Say = (severity, at, field, message) => {
    if (found.length >= MAX_FINDINGS && severity === "warning") return;
    const [file = "", line = ""] = at.split(":");
    found.push({ severity, file, line: Number(line), field, message });
  };
  const decisive = await decisiveRules(policy);
  const alike = new Map<string, Rule>();
  const known = tools === undefined ? undefined : knownTools(policy, tools);
  for (const rule of policy.rules) {
    await breathe();
    if (known !== undefined) checkTool(rule, known, tools ?? [], say);
    checkReach(rule, policy, decisive, say);
    checkWidth(rule, say);
    const key = JSON.stringify([rule.tenant, rule.subject, rule.tool, rule.when.text]);
    const other = alike.get(key);
    if (other === undefined) alike.set(key, rule);
    else if (other.outcome !== rule.outcome) {
      say(
        "warning",
        rule.at,
        "outcome",
        `${other.at} says ${other.outcome} for the same subject, tool and condition; the stricter of the two always wins, so remove the other.`,
      );
    }
  }
  for (const { from, to, tenant } of policy.groups) {
    if (known !== undefined && !known.names.has(from)) {
      say(
        "error",
        lineOfGroup(policy, from, to, tenant),
        "tool",
        `There is no tool ${from}; ${nearest(from, tools ?? [])}.`,
      );
    }
  }
  return found;
}

type Say = (severity: Finding["severity"], at: string, field: string, message: string) => void;

/** Whether some rule could let somebody change the policy of this tenant: without one, only its files can be. */
export function canBeChanged(policy: Policy, tenant: string): boolean {
  const keys = toolKeysOf("policy.push", ["group:policy"], policy.compiled.groupsOf(tenant, "policy.push"));
  return policy.rules.some((rule) => rule.tenant === tenant && rule.outcome !== "deny" && keys.has(rule.tool));
}

/** The tools that there are, and every pattern that fits one of them in a tenant. */
type Known = { readonly names: ReadonlySet<string>; readonly patternsOf: (tenant: string) => ReadonlySet<string> };

function knownTools(policy: Policy, tools: readonly ToolFacts[]): Known {
  const all = [...tools, ...ACTION_TOOLS];
  const patterns = new Map<string, ReadonlySet<string>>();
  return {
    names: new Set(all.map(({ name }) => name)),
    patternsOf: (tenant) => {
      const known = patterns.get(tenant);
      if (known !== undefined) return known;
      const found = new Set<string>();
      for (const { name, groups } of all) {
        const own = groups.map((group) => `group:${group}`);
        for (const key of toolKeysOf(name, own, policy.compiled.groupsOf(tenant, name))) found.add(key);
      }
      patterns.set(tenant, found);
      return found;
    },
  };
}

function checkTool({ at, tool, tenant }: Rule, known: Known, tools: readonly ToolFacts[], say: Say): void {
  if (tool === "*" || known.names.has(tool)) return;
  if (!tool.endsWith(".*") && !tool.startsWith("group:")) {
    say("error", at, "tool", `There is no tool ${tool}; ${nearest(tool, tools)}.`);
  } else if (!known.patternsOf(tenant).has(tool)) {
    say("warning", at, "tool", `${tool} fits no tool that there is; mend it, or leave it for tools to come.`);
  }
}

const ACTION_TOOLS = POLICY_ACTIONS.map((name) => ({ name, groups: ["policy"] }));

function nearest(tool: string, tools: readonly ToolFacts[]): string {
  const family = tools.filter(({ name }) => name.split(".")[0] === tool.split(".")[0]);
  const named = (family.length > 0 ? family : tools).slice(0, 8).map(({ name }) => name);
  return named.length === 0
    ? "add its manifest first"
    : `mend the name (${named.join(", ")}), or add its manifest first`;
}

/** Unconditional rules that outrank others, by tenant, subject and tool. */
async function decisiveRules(policy: Policy): Promise<ReadonlyMap<string, Rule>> {
  const found = new Map<string, Rule>();
  for (const rule of policy.rules) {
    await breathe();
    if (rule.outcome === "allow" || rule.when.text !== "true") continue;
    const key = keyOf(rule.tenant, rule.subject, rule.tool);
    if (found.get(key)?.outcome !== "deny") found.set(key, rule);
  }
  return found;
}

const RANK: Readonly<Record<Outcome, number>> = { allow: 0, require_approval: 1, deny: 2 };

/** A rule that can never decide, because a stricter one without a condition always matches too. */
function checkReach(rule: Rule, policy: Policy, decisive: ReadonlyMap<string, Rule>, say: Say): void {
  const { at, tenant, subject, tool, when, outcome, obligations } = rule;
  if (when.text === "false") {
    say("warning", at, "when", "It never matches: its condition is false; remove the rule.");
    return;
  }
  const { rolesOf, groupsOf } = policy.compiled;
  const isOne = !tool.endsWith("*") && !tool.startsWith("group:");
  const tools = isOne
    ? toolKeysOf(tool, [], groupsOf(tenant, tool))
    : new Set([tool, ...toolKeysOf(tool.replace(/\.\*$/, ""), [])]);
  for (const who of new Set(["*", ...rolesOf(tenant, subject)])) {
    for (const key of tools) {
      const other = decisive.get(keyOf(tenant, who, key));
      // A prefix as orders.* is not the tool orders, and covers itself only by its own spelling.
      if (other === undefined || other === rule || (!isOne && key === tool.replace(/\.\*$/, "") && key !== tool))
        continue;
      if (RANK[other.outcome] <= RANK[outcome]) continue;
      if (other.outcome === "require_approval" && Object.keys(obligations).length > 0) continue;
      const verb = other.outcome === "deny" ? "denies" : "asks for approval";
      say(
        "warning",
        at,
        "",
        `It can never decide: ${other.at} ${verb} whenever it matches; narrow that rule, or remove this one.`,
      );
      return;
    }
  }
}

function checkWidth({ at, outcome, subject, tool, when }: Rule, say: Say): void {
  if (outcome !== "allow" || when.text !== "true") return;
  if (tool === "*") {
    const whom = subject === "*" ? "everybody" : subject;
    say(
      "warning",
      at,
      "tool",
      `It allows ${whom} every tool there is and will be, policy.push among them; name tools, a prefix or a group.`,
    );
  } else if (subject === "*" && (tool.endsWith(".*") || tool.startsWith("group:"))) {
    say(
      "warning",
      at,
      "subject",
      `It allows everybody of the tenant whatever ${tool} fits, now and later; name a role.`,
    );
  }
}

function keyOf(tenant: string, subject: string, tool: string): string {
  return `${tenant} ${subject} ${tool}`;
}

/** Links do not know their place: it is looked for where one is at fault. */
function lineOfGroup(policy: Policy, ...columns: readonly string[]): string {
  for (const [file, text] of policy.bundle) {
    const line = text.split("\n").findIndex(
      (one) =>
        one
          .split(",")
          .map((part) => part.trim())
          .join() === ["g2", ...columns].join(),
    );
    if (line >= 0) return `${file}:${line + 1}`;
  }
  return "policy.csv:0";
}

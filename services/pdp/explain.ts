import type { Answer, Rule } from "./casbin.ts";
import { parseCondition } from "./condition.ts";
import type { Decision, Outcome } from "./decide.ts";
import { type Expression, parseExpression } from "./expression.ts";
import { type Facts, subjectOf, toRequest } from "./facts.ts";
import type { Policy } from "./load.ts";
import { obligationsText } from "./obligations.ts";
import { matchOf, toolKeysOf, type Weighed } from "./shards.ts";

/** Why a call is decided as it is, for the person who has to do something about it. */
export type Explanation = {
  readonly decision: Decision;
  /** In whole sentences, the decision first. */
  readonly sentences: readonly string[];
  /** Rules for this tool that did not match, those that lack least first. */
  readonly nearMisses: readonly NearMiss[];
};

export type NearMiss = { readonly rule: string; readonly outcome: Outcome; readonly missing: readonly string[] };

const MAX_NEAR_MISSES = 10;
const VERBS: Readonly<Record<Outcome, string>> = {
  allow: "may call",
  require_approval: "may call, once people have said yes,",
  deny: "may not call",
};

export function explain(policy: Policy, facts: Facts): Explanation {
  const decision = policy.decide(facts);
  const weighed = policy.compiled.weigh(facts);
  return {
    decision,
    sentences: sentencesOf(facts, decision, weighed),
    nearMisses: nearMissesOf(policy, facts, weighed),
  };
}

function sentencesOf(facts: Facts, decision: Decision, weighed: readonly Weighed[]): string[] {
  const who = subjectOf(facts).replace(":", " ");
  const sentences = [`${capital(who)} ${VERBS[decision.outcome]} ${facts.tool.name}.`];
  if (decision.matchedRules.length === 0)
    sentences.push("No rule matches this call, and what no rule allows is denied.");
  for (const { rule, answer } of weighed) {
    const match = matchOf(rule, answer);
    if (match === undefined) continue;
    const weighs = match.kind === "broken" ? "deny" : rule.outcome;
    if (match.kind === "broken") {
      sentences.push(`${rule.at} could not be evaluated (${match.why}), and a rule that cannot be evaluated denies.`);
    } else if (weighs === decision.outcome) sentences.push(`${rule.at} decides (${weighs}): ${rule.reason}`);
    else sentences.push(`${rule.at} matches too (${weighs}) and is outranked: ${rule.reason}`);
  }
  const imposed = obligationsText(decision.obligations);
  if (imposed !== "") sentences.push(`The rules that match impose ${imposed}.`);
  return sentences;
}

function nearMissesOf(policy: Policy, facts: Facts, weighed: readonly Weighed[]): NearMiss[] {
  const { rolesOf, groupsOf } = policy.compiled;
  const { tenant, tool } = facts;
  const subject = subjectOf(facts);
  const mine = new Set(["*", ...rolesOf(tenant, subject)]);
  const toolKeys = toolKeysOf(
    tool.name,
    tool.groups.map((group) => `group:${group}`),
    groupsOf(tenant, tool.name),
  );
  const answers = new Map(weighed.map(({ rule, answer }) => [rule, answer]));
  const misses: (NearMiss & { readonly order: number })[] = [];
  for (const rule of policy.rules) {
    if (rule.tenant !== tenant || !toolKeys.has(rule.tool)) continue;
    const answer = answers.get(rule);
    if (answer !== undefined && answer.kind !== "fails") continue;
    const missing = [
      ...(mine.has(rule.subject) ? [] : [missingSubject(subject, rule.subject)]),
      ...missingParts(policy, rule, facts),
    ];
    if (missing.length > 0) misses.push({ rule: rule.at, outcome: rule.outcome, missing, order: rule.order });
  }
  return misses
    .toSorted((a, b) => a.missing.length - b.missing.length || a.order - b.order)
    .slice(0, MAX_NEAR_MISSES)
    .map(({ order: _, ...miss }) => miss);
}

function missingSubject(subject: string, wanted: string): string {
  const who = capital(subject.replace(":", " "));
  return wanted.startsWith("role:") ? `${who} does not have ${wanted}.` : `It is for ${wanted.replace(":", " ")} only.`;
}

/** The parts of the condition, joined by &&, that do not hold, each with the values it read. */
function missingParts(policy: Policy, rule: Rule, facts: Facts): string[] {
  const request = toRequest(facts);
  return conjuncts(parseExpression(rule.when.text)).flatMap((part) => {
    const text = printExpression(part);
    const parsed = parseCondition(text);
    if (parsed.kind === "refused") return [];
    // Asked by itself: everybody's rule for this very tool, with this part for its condition.
    const alone = { ...rule, subject: "*", tool: facts.tool.name, when: parsed.condition };
    const answer = policy.compiled.judge(facts, alone);
    if (answer.kind === "holds" || answer.kind === "unknown") return [];
    return [`${text} ${VERDICTS[answer.kind](answer)}${valuesText(parsed.condition.reads, request)}.`];
  });
}

const VERDICTS: { readonly [K in "fails" | "broken"]: (answer: Answer) => string } = {
  fails: () => "does not hold",
  broken: (answer) => `cannot be evaluated (${answer.kind === "broken" ? answer.why : ""})`,
};

function valuesText(reads: readonly (readonly string[])[], request: Readonly<Record<string, unknown>>): string {
  const seen = new Set<string>();
  for (const [token = "", ...fields] of reads) {
    let value: unknown = request[`r_${token}`];
    for (const field of fields) {
      value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[field] : undefined;
    }
    const name = `r.${[token, ...fields].join(".")}`;
    const text = value === undefined ? "not there" : JSON.stringify(value);
    seen.add(`${name} is ${text.length > 80 ? `${text.slice(0, 80)}…` : text}`);
  }
  return seen.size === 0 ? "" : `: ${[...seen].join(", ")}`;
}

function conjuncts(node: Expression): Expression[] {
  return node.type === "LogicalExpression" && node.operator === "&&"
    ? [...conjuncts(node.left), ...conjuncts(node.right)]
    : [node];
}

/** As an operator would write it; only of conditions that parseCondition has taken. */
export function printExpression(node: Expression): string {
  switch (node.type) {
    case "Literal":
      return typeof node.value === "string"
        ? `'${node.value.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`
        : String(node.value);
    case "Identifier":
      return node.name;
    case "MemberExpression": {
      const object = printExpression(node.object);
      const property = printExpression(node.property);
      return node.computed ? `${object}[${property}]` : `${object}.${property}`;
    }
    case "CallExpression":
      return `${printExpression(node.callee)}(${node.arguments.map(printExpression).join(", ")})`;
    case "UnaryExpression":
      return `${node.operator}${inner(node.argument)}`;
    case "BinaryExpression":
    case "LogicalExpression":
      return `${inner(node.left)} ${node.operator} ${inner(node.right)}`;
    case "ConditionalExpression":
    case "ArrayExpression":
    case "ThisExpression":
    case "Compound":
      throw new Error(`a condition has a ${node.type}, which parseCondition does not let through`);
  }
}

function inner(node: Expression): string {
  const joined = node.type === "BinaryExpression" || node.type === "LogicalExpression";
  return joined ? `(${printExpression(node)})` : printExpression(node);
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

import { newModelFromString } from "casbin";
import type { Condition } from "./condition.ts";
import type { WeighedRule } from "./decide.ts";
import { call, type Expression, evaluateExpression, parseExpression } from "./expression.ts";
import { TOKENS } from "./facts.ts";
import { CHECKED, FUNCTIONS } from "./functions.ts";
import { glob } from "./glob.ts";
import { ConditionError } from "./values.ts";

/**
 * Casbin. Its model says what a rule and a request are made of, and its evaluator runs the model's matcher: that matcher is
 * the only judge of whether a rule matches (shards.ts chooses which are asked).
 */

export type Rule = WeighedRule & {
  readonly tenant: string;
  /** `*`, `agent:<name>`, `user:<name>` or `role:<name>`. */
  readonly subject: string;
  /** `*`, `orders.refund`, `orders.*` or `group:<name>`. */
  readonly tool: string;
  readonly when: Condition;
};

/** In a tenant, `from` (an agent, a user, a role, a tool) belongs to `to` (a role, a group). */
export type Link = { readonly from: string; readonly to: string; readonly tenant: string };

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

/** What the matcher says of one rule. */
export type Answer =
  | { readonly kind: "holds" }
  | { readonly kind: "fails" }
  /** The condition threw, or read what is not there. */
  | { readonly kind: "broken"; readonly why: string }
  /** It depends on arguments that are not known. */
  | { readonly kind: "unknown" };

/** Asks the matcher about one rule after another, for one request. */
export type Judge = (request: Readonly<Record<string, unknown>>) => (rule: Rule) => Answer;

const HOLDS: Answer = { kind: "holds" };
const FAILS: Answer = { kind: "fails" };
const UNKNOWN: Answer = { kind: "unknown" };

/** Does `from` reach `to` in this tenant, directly or through others? Casbin's g. */
export type Reaches = (from: string, to: string, tenant: string) => boolean;

/**
 * A judge that is never changed. Casbin's g is answered from the closures of the revision (shards.ts) in place of its
 * role manager, which walks the links anew for each question; differential.test.ts holds the two to the same answers.
 */
export function newJudge(model: Model, g: Reaches, g2: Reaches): Judge {
  const functions: Record<string, unknown> = {
    ...CHECKED,
    ...Object.fromEntries(Object.entries(FUNCTIONS).map(([name, safe]) => [name, safe.call])),
    ...toolFunctions(),
    g,
    g2,
  };
  const matcher = withCondition(model.matcher);
  /** What the matcher reads: the functions by its prototype, the request, and the p_ values of the rule asked about. */
  class Context implements RuleContext {
    [name: string]: unknown;
    p_tenant = "";
    p_subject = "";
    p_tool = "";
    when: Expression = TRUE;
    constructor(request: Readonly<Record<string, unknown>>) {
      for (const name of REQUEST_NAMES) this[name] = request[name];
      if (request["r_args"] === undefined) Object.defineProperty(this, "r_args", { get: refuseUnknownArguments });
    }
  }
  Object.assign(Context.prototype, functions);
  return (request) => {
    const context = new Context(request);
    context[WHEN] = () => evaluateExpression(context.when, context);
    return (rule) => ask(matcher, rule, context);
  };
}

const REQUEST_NAMES = Object.keys(TOKENS).map((token) => `r_${token}`);
const TRUE: Expression = { type: "Literal", value: true, raw: "true" };

type RuleContext = { [name: string]: unknown; p_tenant: string; p_subject: string; p_tool: string; when: Expression };

class UnknownArguments extends Error {}

function refuseUnknownArguments(): never {
  throw new UnknownArguments();
}

function ask(matcher: Expression, rule: Rule, context: RuleContext): Answer {
  context.p_tenant = rule.tenant;
  context.p_subject = rule.subject;
  context.p_tool = rule.tool;
  context.when = rule.when.expression;
  try {
    const answer = evaluateExpression(matcher, context);
    if (answer === true) return HOLDS;
    return answer === false ? FAILS : { kind: "broken", why: "it is neither true nor false" };
  } catch (error) {
    if (error instanceof UnknownArguments) return UNKNOWN;
    return { kind: "broken", why: error instanceof ConditionError ? error.message : "it failed" };
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

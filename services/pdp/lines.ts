import { NAME, TOOL_NAME } from "../shared/names.ts";
import { type Link, RULE_COLUMNS, type Rule } from "./casbin.ts";
import { type ConditionResult, parseCondition } from "./condition.ts";
import { parseCsvLine } from "./csv.ts";
import { OUTCOMES, type Outcome } from "./decide.ts";
import { parseObligations } from "./obligations.ts";

/** One line of a policy file, checked as far as it can be by itself. */
export type PolicyLine =
  | { readonly kind: "blank" }
  /** `key`: the same for rules that say the same. */
  | { readonly kind: "rule"; readonly rule: LineRule; readonly key: string }
  | { readonly kind: "role"; readonly link: Link }
  | { readonly kind: "group"; readonly link: Link }
  | { readonly kind: "broken"; readonly problems: readonly LineProblem[] };

/** A rule that has no place yet. */
export type LineRule = Omit<Rule, "at" | "order">;

/** Conditions by their text: many rules have the same, and hold one. */
export type KnownConditions = Map<string, ConditionResult>;

export type LineProblem = { readonly field: string; readonly message: string };

const MAX_REASON_LENGTH = 300;
const SUBJECT = /^(\*|(agent|role):[A-Za-z0-9][A-Za-z0-9_-]{0,63}|user:[A-Za-z0-9][A-Za-z0-9_.@+=-]{0,127})$/;
const ROLE = /^role:[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;
const GROUP = /^group:[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

export function parsePolicyLine(text: string, conditions: KnownConditions): PolicyLine {
  const csv = parseCsvLine(text);
  switch (csv.kind) {
    case "blank":
      return { kind: "blank" };
    case "broken":
      return broken("", csv.message);
    case "fields": {
      const [type, ...columns] = csv.fields;
      if (type === "p") return parseRule(columns, conditions);
      if (type === "g") return parseRole(columns);
      if (type === "g2") return parseGroup(columns);
      return broken("", `A line begins with p (a rule), g (a role) or g2 (a tool group), not with '${type}'.`);
    }
  }
}

function parseRule(columns: readonly string[], conditions: KnownConditions): PolicyLine {
  if (columns.length !== RULE_COLUMNS.length && columns.length !== RULE_COLUMNS.length - 1) {
    const wanted = `A rule is p, ${RULE_COLUMNS.join(", ")}`;
    return broken("", `${wanted}; here are ${columns.length} columns after p. Quote a field that holds a comma.`);
  }
  const [tenant = "", subject = "", tool = "", outcome = "", when = "", reason = "", imposes = ""] = columns;
  const problems: LineProblem[] = [];
  const expect = (holds: boolean, field: string, message: string): void => {
    if (!holds) problems.push({ field, message });
  };
  expect(NAME.test(tenant), "tenant", "Name one tenant: letters, digits, '-' or '_'.");
  expect(
    SUBJECT.test(subject),
    "subject",
    "Write agent:<name>, user:<name>, role:<name>, or * for everybody of the tenant.",
  );
  expect(isToolPattern(tool), "tool", "Write a tool's name, a prefix as orders.*, group:<name>, or * for every tool.");
  expect(isOutcome(outcome), "outcome", `'${outcome}' is no outcome; write ${OUTCOMES.join(", ")}.`);
  const short = reason !== "" && reason.length <= MAX_REASON_LENGTH;
  expect(
    short,
    "reason",
    `Write one sentence of at most ${MAX_REASON_LENGTH} characters for the person who reads why.`,
  );
  const condition = conditions.get(when) ?? parseCondition(when);
  conditions.set(when, condition);
  if (condition.kind === "refused") problems.push({ field: "when", message: condition.message });
  const obligations = isOutcome(outcome) ? parseObligations(imposes, outcome) : undefined;
  if (obligations?.kind === "refused") problems.push({ field: "obligations", message: obligations.message });
  if (problems.length > 0 || condition.kind !== "ok" || obligations?.kind !== "ok" || !isOutcome(outcome)) {
    return { kind: "broken", problems };
  }
  const rule = {
    tenant,
    subject,
    tool,
    outcome,
    when: condition.condition,
    reason,
    obligations: obligations.obligations,
  };
  return { kind: "rule", rule, key: JSON.stringify(columns) };
}

function parseRole(columns: readonly string[]): PolicyLine {
  const [who = "", role = "", tenant = ""] = columns;
  if (columns.length !== 3)
    return broken("", `Write g, who, role, tenant; here are ${columns.length} columns after g.`);
  if (who === "*" || !SUBJECT.test(who)) return broken("who", "Write agent:<name>, user:<name> or role:<name>.");
  if (!ROLE.test(role)) return broken("role", "Write role:<name>.");
  if (!NAME.test(tenant)) return broken("tenant", "Name one tenant: letters, digits, '-' or '_'.");
  return { kind: "role", link: { from: who, to: role, tenant } };
}

function parseGroup(columns: readonly string[]): PolicyLine {
  const [tool = "", group = "", tenant = ""] = columns;
  if (columns.length !== 3)
    return broken("", `Write g2, tool, group, tenant; here are ${columns.length} columns after g2.`);
  if (!TOOL_NAME.test(tool))
    return broken("tool", "Write one tool's name; patterns and groups cannot be put in a group.");
  if (!GROUP.test(group)) return broken("group", "Write group:<name>.");
  if (!NAME.test(tenant)) return broken("tenant", "Name one tenant: letters, digits, '-' or '_'.");
  return { kind: "group", link: { from: tool, to: group, tenant } };
}

function broken(field: string, message: string): PolicyLine {
  return { kind: "broken", problems: [{ field, message }] };
}

function isOutcome(text: string): text is Outcome {
  return (OUTCOMES as readonly string[]).includes(text);
}

function isToolPattern(text: string): boolean {
  if (text === "*" || TOOL_NAME.test(text) || GROUP.test(text)) return true;
  return text.endsWith(".*") && TOOL_NAME.test(text.slice(0, -2));
}

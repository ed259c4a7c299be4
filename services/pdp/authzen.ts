import { z } from "zod";
import type { Json, JsonObject } from "../shared/json.ts";
import { TOOL_NAME } from "../shared/names.ts";
import type { Decision } from "./decide.ts";
import { type Facts, LABELS, NOTHING_SPENT, type ToolFacts } from "./facts.ts";
import type { Policy } from "./load.ts";
import { namesOfObligations, obligationsText } from "./obligations.ts";
import { subjectsOf } from "./possible.ts";

/**
 * AuthZEN Authorization API 1.0 (OpenID Foundation, January 2026), as questions to the same policy.
 *
 * A resource of type `tool` is one of Interlock's tools: the action is `call`, its properties are the arguments. Any other
 * resource is asked about as the tool `<resource type>.<action name>`, and conditions read what was sent as r.args.subject,
 * r.args.action, r.args.resource and r.args.context. Only an allow is `true`; that people could still say yes is in the
 * context, and so is an obligation that the caller did not say it honours (`context.understands`): that is a `false`.
 */

const text = z.string("it is a text").min(1, "it is not empty").max(256, "it has at most 256 characters");
const properties = z.record(z.string(), z.json(), "it is an object").optional();
const subject = z.object({ type: text, id: text, properties }, "it is an object with type and id");
const action = z.object({ name: text, properties }, "it is an object with a name");
const resource = z.object({ type: text, id: text, properties }, "it is an object with type and id");
const context = z.record(z.string(), z.json(), "it is an object").optional();
const page = z.object({}, "it is an object").optional();

export const evaluationSchema = z.object({ subject, action, resource, context });
export type Evaluation = z.output<typeof evaluationSchema>;

const anything = z.record(z.string(), z.json());
export const SEMANTICS = ["execute_all", "deny_on_first_deny", "permit_on_first_permit"] as const;
export const evaluationsSchema = z.object({
  subject: anything.optional(),
  action: anything.optional(),
  resource: anything.optional(),
  context,
  evaluations: z.array(anything, "it is a list of objects").max(1000, "send at most 1000 at a time").optional(),
  options: z
    .object({ evaluations_semantic: z.enum(SEMANTICS, `use ${SEMANTICS.join(", ")}`).default("execute_all") })
    .prefault({}),
});
export type Evaluations = z.output<typeof evaluationsSchema>;

const { shape } = subject;
const typeOnly = z.object({ type: shape.type, properties }, "it is an object with a type");
export const searchSchemas = {
  subject: z.object({ subject: typeOnly, action, resource, context, page }),
  resource: z.object({ subject, action, resource: typeOnly, context, page }),
  action: z.object({ subject, resource, context, page }),
} as const;

export type Answer = { readonly decision: boolean; readonly context?: JsonObject };

/** What decides. */
export type Judge = {
  readonly tenant: string;
  readonly tools: readonly ToolFacts[];
  readonly decide: (facts: Facts) => Decision & { readonly revision: string };
  readonly policy: Policy;
  readonly nowMs: number;
};

/** `subject.id: it is a text`, as the caller names the field. */
export function problemText(error: z.ZodError): string {
  const [issue] = error.issues;
  const path = issue?.path.map(String).join(".") ?? "";
  return `${path === "" ? "The request" : path}: ${issue?.message ?? "it is wrong"}.`;
}

export function evaluate(asked: Evaluation, judge: Judge): Answer {
  const facts = factsOf(asked, judge);
  if (typeof facts === "string") return { decision: false, context: { reason: facts } };
  const { outcome, reasons, matchedRules, obligations, revision } = judge.decide(facts);
  const about = { reasons: [...reasons], rules: [...matchedRules], revision };
  if (outcome === "deny") return { decision: false, context: about };
  const imposed = obligationsText(obligations);
  const shown = { ...about, ...(imposed !== "" && { obligations: imposed }) };
  if (outcome === "require_approval") return { decision: false, context: { ...shown, needs_approval: true } };
  const known = asked.context?.["understands"];
  const unknown = namesOfObligations(obligations).filter((name) => !Array.isArray(known) || !known.includes(name));
  if (unknown.length === 0) return { decision: true, context: shown };
  const reason = `It is allowed under obligations only, and you did not say in context.understands that you honour ${unknown.join(", ")}.`;
  return { decision: false, context: { ...shown, reason } };
}

/** One answer for each that was asked, in order; a semantic may end it early. Without any, the request is one itself. */
export function evaluateAll(asked: Evaluations, judge: Judge): { readonly evaluations: Answer[] } {
  const { evaluations = [], options, ...defaults } = asked;
  const answers: Answer[] = [];
  for (const item of evaluations) {
    const answer = evaluateItem(withDefaults(item, defaults), judge);
    answers.push(answer);
    if (options.evaluations_semantic === "deny_on_first_deny" && !answer.decision) break;
    if (options.evaluations_semantic === "permit_on_first_permit" && answer.decision) break;
  }
  return { evaluations: answers };
}

/** An item that is wrong spoils only its own answer. */
function evaluateItem(item: unknown, judge: Judge): Answer {
  const parsed = evaluationSchema.safeParse(item);
  if (parsed.success) return evaluate(parsed.data, judge);
  return { decision: false, context: { error: { status: 400, message: problemText(parsed.error) } } };
}

/** An item's own entity takes the place of the default one, whose type, id and name stand in for those it lacks. */
function withDefaults(item: JsonObject, defaults: Readonly<Record<string, Json | undefined>>): Record<string, unknown> {
  const merged: Record<string, unknown> = {};
  for (const key of ["subject", "action", "resource", "context"]) {
    const [own, common] = [item[key], defaults[key]];
    if (own === undefined) merged[key] = common;
    else if (key === "context" || !isObject(own) || !isObject(common)) merged[key] = own;
    else merged[key] = { ...pick(common, ["type", "id", "name"]), ...own };
  }
  return merged;
}

function pick(object: JsonObject, keys: readonly string[]): Record<string, Json> {
  return Object.fromEntries(keys.flatMap((key) => (object[key] === undefined ? [] : [[key, object[key]]])));
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Who of the type could do this, among those whom rules and roles name. */
export function searchSubjects(asked: z.output<(typeof searchSchemas)["subject"]>, judge: Judge) {
  const { type, properties: known } = asked.subject;
  const names = subjectsOf(judge.policy, judge.tenant).flatMap((name) =>
    name.startsWith(`${type}:`) ? [name.slice(type.length + 1)] : [],
  );
  const could = names.filter((id) => {
    return evaluate({ ...asked, subject: { type, id, ...(known && { properties: known }) } }, judge).decision;
  });
  return { results: could.map((id) => ({ type, id })) };
}

/** Which tools the subject could call. Of other types we know no members: there is nothing to list. */
export function searchResources(asked: z.output<(typeof searchSchemas)["resource"]>, judge: Judge) {
  const { type, properties: known } = asked.resource;
  if (type !== "tool") return { results: [] };
  const could = judge.tools.filter(({ name }) => {
    return evaluate({ ...asked, resource: { type, id: name, ...(known && { properties: known }) } }, judge).decision;
  });
  return { results: could.map(({ name }) => ({ type, id: name })) };
}

/** What the subject could do with the resource, among the actions that tools and rules name for its type. */
export function searchActions(asked: z.output<(typeof searchSchemas)["action"]>, judge: Judge) {
  const could = actionsOf(asked.resource.type, judge).filter(
    (name) => evaluate({ ...asked, action: { name } }, judge).decision,
  );
  return { results: could.map((name) => ({ name })) };
}

function actionsOf(type: string, { policy, tenant, tools }: Judge): string[] {
  if (type === "tool") return ["call"];
  const named = [
    ...tools.map(({ name }) => name),
    ...policy.rules.flatMap((rule) => (rule.tenant === tenant && TOOL_NAME.test(rule.tool) ? [rule.tool] : [])),
    ...policy.groups.flatMap((link) => (link.tenant === tenant ? [link.from] : [])),
  ];
  const own = named.flatMap((name) => (name.startsWith(`${type}.`) ? [name.slice(type.length + 1)] : []));
  return [...new Set(own)].toSorted((a, b) => (a < b ? -1 : 1));
}

/** What policy sees of the question, or why it cannot see any of it. */
function factsOf(asked: Evaluation, { tenant, tools, nowMs }: Judge): Facts | string {
  const who = { agent: { agent: asked.subject.id, user: "" }, user: { agent: "", user: asked.subject.id } }[
    asked.subject.type
  ];
  if (who === undefined) return `Subjects are of type agent or user here, not ${asked.subject.type}.`;
  if (/\p{Cc}/u.test(asked.subject.id)) return "The subject's id has a control character.";
  const found = toolOf(asked, tools);
  if (typeof found === "string") return found;
  const labels = asked.context?.["labels"];
  return {
    ...{ tenant, ...who, session: "", timeMs: nowMs },
    tool: found.tool,
    args: found.args,
    labels: Array.isArray(labels) ? LABELS.filter((label) => labels.includes(label)) : [],
    ...{ loop: "clear", chain: [], spent: NOTHING_SPENT },
  };
}

function toolOf(asked: Evaluation, tools: readonly ToolFacts[]): { tool: ToolFacts; args: JsonObject } | string {
  const { subject: who, action: what, resource: which } = asked;
  if (which.type === "tool") {
    const tool = tools.find(({ name }) => name === which.id);
    if (tool === undefined) return `There is no tool ${which.id}.`;
    return what.name === "call" ? { tool, args: what.properties ?? {} } : `A tool can be called, not ${what.name}.`;
  }
  const name = `${which.type}.${what.name}`;
  if (!TOOL_NAME.test(name)) return `No rule can name ${name}: types and actions are lower-case words here.`;
  const tool = tools.find((known) => known.name === name) ?? {
    name,
    version: "1.0.0",
    impact: "low",
    effects: [],
    groups: [],
  };
  const args = {
    subject: { ...who, properties: who.properties ?? {} },
    action: { ...what, properties: what.properties ?? {} },
    resource: { ...which, properties: which.properties ?? {} },
    context: asked.context ?? {},
  };
  return { tool, args };
}

import { call, type Expression, literal, parseExpression } from "./expression.ts";
import { TOKENS } from "./facts.ts";
import { FUNCTIONS, type SafeFunction, type StaticType } from "./functions.ts";

/**
 * A rule's condition, checked when the policy is loaded. Only what is listed here is understood, and what could be
 * misread is refused: every field read and operator is replaced by its checked form (functions.ts), so that a missing
 * field or a comparison of text with a number throws, where Casbin by itself would answer false and a deny rule would
 * silently not match.
 */

export type Condition = {
  /** As it was written. */
  readonly text: string;
  readonly expression: Expression;
  /** Roles it names in g(), for the loader to check. */
  readonly roles: readonly string[];
  /** The facts that its answer can depend on, as `["args", "amount"]`. */
  readonly reads: readonly (readonly string[])[];
};

export type ConditionResult =
  | { readonly kind: "ok"; readonly condition: Condition }
  | { readonly kind: "refused"; readonly message: string };

export const MAX_CONDITION_LENGTH = 1000;

class Refused extends Error {}

/** `values`: the only ones a text, or the items of a list, can have. */
type Checked = { readonly expression: Expression; readonly type: StaticType; readonly values?: readonly string[] };

const COMPARISONS = new Set(["==", "!=", "<", "<=", ">", ">="]);
const ARITHMETIC = new Set(["+", "-", "*"]);

export function parseCondition(text: string): ConditionResult {
  if (text === "") return { kind: "refused", message: "Write the condition, or true for a rule that always applies." };
  if (text.length > MAX_CONDITION_LENGTH) {
    return { kind: "refused", message: `Shorten it to ${MAX_CONDITION_LENGTH} characters, or split the rule.` };
  }
  try {
    const roles: string[] = [];
    const expression = asBoolean(check(parseExpression(text), roles), "the condition");
    return { kind: "ok", condition: { text, expression, roles, reads: readsOf(expression) } };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const message = error instanceof Refused ? error.message : `It cannot be read: ${error.message}.`;
    return { kind: "refused", message };
  }
}

function check(node: Expression, roles: string[]): Checked {
  switch (node.type) {
    case "Literal":
      return checkLiteral(node);
    case "Identifier":
      throw new Refused(
        `Replace ${node.name}: facts are read as r.<fact>, such as r.args.amount or r.impact, and text stands in single quotes.`,
      );
    case "MemberExpression":
      return checkField(node);
    case "CallExpression":
      return checkCall(node, roles);
    case "UnaryExpression":
      return checkUnary(node, roles);
    case "LogicalExpression": {
      const left = asBoolean(check(node.left, roles), `what is left of ${node.operator}`);
      const right = asBoolean(check(node.right, roles), `what is right of ${node.operator}`);
      return { expression: { ...node, left, right }, type: "boolean" };
    }
    case "BinaryExpression":
      return checkBinary(node.operator, check(node.left, roles), check(node.right, roles));
    case "ConditionalExpression":
      throw new Refused("Use && and || instead of ? and :.");
    case "ArrayExpression":
      throw new Refused("Lists cannot be written in a condition; use oneOf(value, 'a', 'b').");
    case "ThisExpression":
      throw new Refused("Remove this: facts are read as r.<fact>.");
    case "Compound":
      throw new Refused(
        "Join the parts with && or ||; for membership use oneOf(value, 'a', 'b') or contains(list, 'a').",
      );
  }
}

function checkLiteral(node: Extract<Expression, { type: "Literal" }>): Checked {
  if (typeof node.value === "number" && (!Number.isFinite(node.value) || unsafeInteger(node))) {
    throw new Refused(`The number ${node.raw} cannot be held exactly; use a smaller one.`);
  }
  switch (typeof node.value) {
    case "string":
      return { expression: node, type: "text" };
    case "number":
      return { expression: node, type: "number" };
    case "boolean":
      return { expression: node, type: "boolean" };
    default:
      return { expression: node, type: "unknown" };
  }
}

function unsafeInteger(node: { readonly value: unknown; readonly raw: string }): boolean {
  return /^\d+$/.test(node.raw) && !Number.isSafeInteger(node.value);
}

/** `r.args.items[0].price`: the token first, then fields that must be there when the rule is evaluated. */
function checkField(node: Extract<Expression, { type: "MemberExpression" }>): Checked {
  const key = keyOf(node);
  if (node.object.type === "Identifier") {
    const token = TOKENS[key];
    if (node.object.name !== "r" || node.computed || !Object.hasOwn(TOKENS, key) || token === undefined) {
      throw new Refused(`${node.object.name}.${key} is no fact; there are ${names(Object.keys(TOKENS), "r.")}.`);
    }
    return { expression: { type: "Identifier", name: `r_${key}` }, ...token };
  }
  if (node.object.type !== "MemberExpression") throw new Refused("Fields are read from facts only, as r.args.amount.");
  const object = checkField(node.object);
  const path = pathOf(node);
  if (object.type === "list") throw new Refused(`r.${path}: this is a list; use contains(list, value).`);
  if (object.type !== "object" && object.type !== "unknown")
    throw new Refused(`r.${path}: ${object.type} has no fields.`);
  const [token = ""] = path.split(".");
  const fields = TOKENS[token]?.fields;
  if (fields !== undefined && !fields.includes(key)) {
    throw new Refused(`r.${path} is no fact; there are ${names(fields, `r.${token}.`)}.`);
  }
  return { expression: call("$field", object.expression, literal(key), literal(path)), type: "unknown" };
}

function keyOf(node: Extract<Expression, { type: "MemberExpression" }>): string {
  if (!node.computed && node.property.type === "Identifier") return node.property.name;
  if (node.computed && node.property.type === "Literal") return String(node.property.value);
  throw new Refused("Between [ and ] goes a quoted name or a number, as r.args['user-name'] or r.args.items[0].");
}

function pathOf(node: Extract<Expression, { type: "MemberExpression" }>): string {
  return node.object.type === "MemberExpression" ? `${pathOf(node.object)}.${keyOf(node)}` : keyOf(node);
}

function checkCall(node: Extract<Expression, { type: "CallExpression" }>, roles: string[]): Checked {
  const name = node.callee.type === "Identifier" ? node.callee.name : "";
  if (name === "g") return checkRoleCall(node, roles);
  const safe = Object.hasOwn(FUNCTIONS, name) ? FUNCTIONS[name] : undefined;
  if (safe === undefined) {
    const spelled = name === "" ? "A method" : `${name}()`;
    throw new Refused(
      `${spelled} is no function of conditions; there are ${names([...Object.keys(FUNCTIONS), "g"], "")}.`,
    );
  }
  const args = node.arguments.map((argument) => check(argument, roles));
  const most = safe.rest === undefined ? safe.parameters.length : Number.POSITIVE_INFINITY;
  if (args.length < safe.parameters.length || args.length > most) {
    throw new Refused(`${name}() has ${args.length} arguments; write it as ${safe.usage}.`);
  }
  for (const [i, argument] of args.entries()) checkArgument(name, safe, i, argument);
  for (const other of args.slice(1)) checkKnown(args[0], other);
  return { expression: call(name, ...args.map((argument) => argument.expression)), type: safe.returns };
}

function checkArgument(name: string, safe: SafeFunction, i: number, argument: Checked): void {
  const wanted = safe.parameters[i] ?? safe.rest ?? "unknown";
  const { expression } = argument;
  const written = expression.type === "Literal" && typeof expression.value === "string" ? expression.value : undefined;
  const problem = written === undefined ? undefined : safe.problemOf?.(i, written);
  if (problem !== undefined) throw new Refused(`Argument ${i + 1} of ${name}(): ${problem}.`);
  if (wanted === "unknown" || argument.type === "unknown" || wanted === argument.type) return;
  throw new Refused(`Argument ${i + 1} of ${name}() is ${argument.type}, not ${wanted}; write it as ${safe.usage}.`);
}

/** g(r.subject, 'role:x', r.tenant), or of r.person: Casbin's own role question, in its two safe forms. */
function checkRoleCall(node: Extract<Expression, { type: "CallExpression" }>, roles: string[]): Checked {
  const [subject, role, tenant] = node.arguments;
  const reads = (argument: Expression | undefined, path: string): boolean =>
    argument?.type === "MemberExpression" && pathOf(argument) === path;
  if (
    node.arguments.length !== 3 ||
    !(reads(subject, "subject") || reads(subject, "person")) ||
    !reads(tenant, "tenant") ||
    role?.type !== "Literal"
  ) {
    throw new Refused(
      "Ask for a role as g(r.subject, 'role:name', r.tenant), or of the user with g(r.person, 'role:name', r.tenant).",
    );
  }
  roles.push(String(role.value));
  const args = node.arguments.map((argument) => check(argument, roles).expression);
  return { expression: call("g", ...args), type: "boolean" };
}

function checkUnary(node: Extract<Expression, { type: "UnaryExpression" }>, roles: string[]): Checked {
  if (node.operator === "!") {
    const argument = asBoolean(check(node.argument, roles), "what follows !");
    return { expression: { ...node, argument }, type: "boolean" };
  }
  const argument = check(node.argument, roles).expression;
  if (node.operator === "-" && argument.type === "Literal" && typeof argument.value === "number") {
    return { expression: literal(-argument.value), type: "number" };
  }
  throw new Refused(`The operator ${node.operator} is only for numbers written out, as in -5.`);
}

function checkBinary(operator: string, left: Checked, right: Checked): Checked {
  const expression = call(`$${operator}`, left.expression, right.expression);
  const known = left.type !== "unknown" && right.type !== "unknown";
  if (ARITHMETIC.has(operator)) {
    for (const { type } of [left, right]) {
      if (type !== "number" && type !== "unknown")
        throw new Refused(`${operator} is for numbers, and one side is ${type}.`);
    }
    return { expression, type: "number" };
  }
  if (!COMPARISONS.has(operator)) {
    throw new Refused(`The operator ${operator} is not known; there are == != < <= > >= + - * && || and !.`);
  }
  if (known && left.type !== right.type) {
    throw new Refused(`${operator} compares ${left.type} with ${right.type}, which is never answered.`);
  }
  for (const { type } of [left, right]) {
    if (type === "list" || type === "object")
      throw new Refused(`${operator} cannot compare a whole ${type}; use contains() or has().`);
  }
  checkKnown(left, right);
  checkKnown(right, left);
  return { expression, type: "boolean" };
}

/** What the answer can depend on: the widest paths that are read. */
function readsOf(expression: Expression): string[][] {
  const path = pathRead(expression);
  if (path !== undefined) return [path];
  switch (expression.type) {
    case "CallExpression":
      return expression.arguments.flatMap(readsOf);
    case "UnaryExpression":
      return readsOf(expression.argument);
    case "BinaryExpression":
    case "LogicalExpression":
      return [...readsOf(expression.left), ...readsOf(expression.right)];
    default:
      return [];
  }
}

/** The path of one read: a token, a field of it, or whether it has a field. */
function pathRead(expression: Expression): string[] | undefined {
  if (expression.type === "Identifier")
    return expression.name.startsWith("r_") ? [expression.name.slice(2)] : undefined;
  if (expression.type !== "CallExpression" || expression.callee.type !== "Identifier") return undefined;
  const [object, key] = expression.arguments;
  if (!["$field", "has"].includes(expression.callee.name) || object === undefined || key?.type !== "Literal")
    return undefined;
  const parent = pathRead(object);
  return parent === undefined ? undefined : [...parent, String(key.value)];
}

/** `r.impact == 'hihg'` would never hold: a deny rule with a slip would be no rule at all. */
function checkKnown(side: Checked | undefined, other: Checked): void {
  const value = other.expression.type === "Literal" ? other.expression.value : undefined;
  if (side?.values === undefined || typeof value !== "string" || side.values.includes(value)) return;
  throw new Refused(`'${value}' can never be there; there are ${names(side.values, "")}.`);
}

function asBoolean(checked: Checked, where: string): Expression {
  if (checked.type === "boolean") return checked.expression;
  if (checked.type === "unknown") return call("$bool", checked.expression, literal(where));
  throw new Refused(`${where} is ${checked.type}, not true or false; compare it with something.`);
}

function names(list: readonly string[], prefix: string): string {
  return list.map((name) => prefix + name).join(", ");
}

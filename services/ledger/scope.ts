/**
 * Whose spending a budget counts. A scope is `tenant`, or one or more of the dimensions below joined by ` & `:
 * `agent`, `agent:a1`, `agent & tool:orders.refund`. A dimension without a name gives everybody a budget of their own.
 */

export const DIMENSIONS = ["agent", "user", "session", "tool", "group"] as const;
export type Dimension = (typeof DIMENSIONS)[number];

/** `name` undefined: each has its own. Dimensions stand in the order of DIMENSIONS; none: the tenant as a whole. */
export type Scope = readonly { readonly dimension: Dimension; readonly name: string | undefined }[];

/** Who spends, on what: everything a scope can name. `user` is empty for nobody. */
export type Spender = {
  readonly agent: string;
  readonly user: string;
  readonly session: string;
  readonly tool: string;
  /** The tool's groups. */
  readonly groups: readonly string[];
};

const NAMES: Readonly<Record<Dimension, RegExp>> = {
  agent: /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/,
  user: /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/,
  session: /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/,
  tool: /^[a-z][a-z0-9_-]{0,62}(\.[a-z][a-z0-9_-]{0,62}){0,3}$/,
  group: /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/,
};

const AND = " & ";

/** What is wrong is told as a text that says how to mend it. */
export function parseScope(text: string): Scope | string {
  if (text === "tenant") return [];
  const parts: { dimension: Dimension; name: string | undefined }[] = [];
  for (const part of text.split("&").map((piece) => piece.trim())) {
    const [word = "", ...rest] = part.split(":");
    const dimension = DIMENSIONS.find((known) => known === word);
    if (dimension === undefined) return `"${word}" is no scope; use tenant, or ${DIMENSIONS.join(", ")} joined by &`;
    if (parts.some((other) => other.dimension === dimension)) return `${dimension} stands there twice; name it once`;
    const name = rest.join(":");
    if (rest.length > 0 && name !== "*" && !NAMES[dimension].test(name)) {
      return `"${name}" is no ${dimension}; name one, or leave it out for each ${dimension} by itself`;
    }
    parts.push({ dimension, name: rest.length === 0 || name === "*" ? undefined : name });
  }
  return parts.toSorted((a, b) => DIMENSIONS.indexOf(a.dimension) - DIMENSIONS.indexOf(b.dimension));
}

export function scopeText(scope: Scope): string {
  if (scope.length === 0) return "tenant";
  return scope.map(({ dimension, name }) => (name === undefined ? dimension : `${dimension}:${name}`)).join(AND);
}

/** Every subject in this scope that the spender is: none when it is not covered, several where a tool has more groups. */
export function subjectsOf(scope: Scope, spender: Spender, tenant: string): readonly string[] {
  if (scope.length === 0) return [tenant];
  let subjects: readonly string[] = [""];
  for (const { dimension, name } of scope) {
    const values = valuesOf(dimension, spender).filter((value) => name === undefined || name === value);
    subjects = subjects.flatMap((before) => values.map((value) => (before === "" ? value : before + AND + value)));
  }
  return subjects;
}

/** The subject that the scope itself names; undefined when it is for each of them. */
export function namedSubject(scope: Scope, tenant: string): string | undefined {
  if (scope.length === 0) return tenant;
  const names = scope.map(({ name }) => name);
  return names.every((name) => name !== undefined) ? names.join(AND) : undefined;
}

/** What is wrong with a subject of this scope, as `a1 & orders.refund`. */
export function wrongSubject(scope: Scope, subject: string, tenant: string): string | undefined {
  if (scope.length === 0) return subject === tenant ? undefined : `the subject of scope tenant is ${tenant}`;
  const values = subject.split(AND);
  if (values.length !== scope.length) return `give ${scope.map(({ dimension }) => `a ${dimension}`).join(AND)}`;
  for (const [i, { dimension, name }] of scope.entries()) {
    const value = values[i] ?? "";
    if (!NAMES[dimension].test(value)) return `"${value}" is no ${dimension}`;
    if (name !== undefined && name !== value) return `this budget is for ${dimension} ${name} only`;
  }
  return undefined;
}

export function valuesOf(dimension: Dimension, spender: Spender): readonly string[] {
  if (dimension === "group") return spender.groups;
  const value = spender[dimension];
  return value === "" ? [] : [value];
}

/** `tenant`, `budget:<name>` or one of a dimension, `agent:a1`: what can be frozen. */
export function parseSelector(text: string): string | undefined {
  if (text === "tenant") return text;
  const [word = "", name = "", ...rest] = text.split(":");
  if (rest.length > 0) return undefined;
  if (word === "budget") return NAMES.agent.test(name) ? text : undefined;
  const dimension = DIMENSIONS.find((known) => known === word);
  return dimension !== undefined && NAMES[dimension].test(name) ? text : undefined;
}

/** Every selector that names this spender. */
export function* selectorsOf(spender: Spender): Generator<string> {
  yield "tenant";
  for (const dimension of DIMENSIONS) for (const value of valuesOf(dimension, spender)) yield `${dimension}:${value}`;
}

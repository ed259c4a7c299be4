import type { Json } from "../shared/json.ts";

/**
 * What conditions may call, and what their operators mean. Nothing converts: text is never a number, and nothing but
 * true is true. What cannot be answered throws, and a condition that throws denies.
 */

/** A condition that has no answer; the message goes on as "rule … could not be evaluated: <message>". */
export class ConditionError extends Error {
  override readonly name = "ConditionError";
}

export type StaticType = "boolean" | "number" | "text" | "list" | "object" | "unknown";

export type SafeFunction = {
  /** Of its fixed arguments; `rest` may follow any number of times. */
  readonly parameters: readonly StaticType[];
  readonly rest?: StaticType;
  readonly usage: string;
  readonly call: (...values: Json[]) => boolean;
};

/** Documented in policies/README.md. All return a boolean. */
export const FUNCTIONS: Readonly<Record<string, SafeFunction>> = {
  glob: {
    parameters: ["text", "text"],
    usage: "glob(r.args.path, '/data/*')",
    call: (text, pattern) => glob(text_(text), text_(pattern)),
  },
  between: {
    parameters: ["number", "number", "number"],
    usage: "between(r.args.amount, 1, 100)",
    call: (value, low, high) => number_(value) >= number_(low) && number_(value) <= number_(high),
  },
  oneOf: {
    parameters: ["unknown", "unknown"],
    rest: "unknown",
    usage: "oneOf(r.impact, 'medium', 'high')",
    call: (value, ...options) => options.some((option) => equal(value ?? null, option)),
  },
  contains: {
    parameters: ["list", "unknown"],
    usage: "contains(r.labels, 'private-data')",
    call: (list, value) => {
      if (!Array.isArray(list)) throw new ConditionError(`contains() wants a list and got ${kindOf(list)}`);
      return list.includes(value);
    },
  },
  has: {
    parameters: ["object", "text"],
    usage: "has(r.args, 'note')",
    call: (object, key) => {
      if (kindOf(object) !== "an object") throw new ConditionError(`has() wants an object and got ${kindOf(object)}`);
      return Object.hasOwn(object as object, text_(key));
    },
  },
};

/** `*` stands for any run of characters, the empty one too; every other character for itself. Linear in both lengths. */
export function glob(text: string, pattern: string): boolean {
  let t = 0;
  let p = 0;
  let star = -1;
  let resumeAt = 0;
  while (t < text.length) {
    if (pattern[p] === "*") {
      star = p++;
      resumeAt = t;
    } else if (p < pattern.length && pattern[p] === text[t]) {
      t++;
      p++;
    } else if (star >= 0) {
      p = star + 1;
      t = ++resumeAt;
    } else {
      return false;
    }
  }
  while (pattern[p] === "*") p++;
  return p === pattern.length;
}

/** What operators and field reads are compiled to: names that no condition can spell. */
export const CHECKED = {
  $field(object: Json | undefined, key: string, path: string): Json {
    if (typeof object !== "object" || object === null || !Object.hasOwn(object, key)) {
      throw new ConditionError(`it reads ${path}, which this call does not have`);
    }
    return (object as Record<string, Json>)[key] ?? null;
  },
  $bool(value: Json | undefined, where: string): boolean {
    if (typeof value !== "boolean") throw new ConditionError(`${where} is ${kindOf(value)}, not true or false`);
    return value;
  },
  "$==": (a: Json, b: Json): boolean => equal(a, b),
  "$!=": (a: Json, b: Json): boolean => !equal(a, b),
  "$<": (a: Json, b: Json): boolean => order(a, b) < 0,
  "$<=": (a: Json, b: Json): boolean => order(a, b) <= 0,
  "$>": (a: Json, b: Json): boolean => order(a, b) > 0,
  "$>=": (a: Json, b: Json): boolean => order(a, b) >= 0,
  "$+": (a: Json, b: Json): number => number_(a) + number_(b),
  "$-": (a: Json, b: Json): number => number_(a) - number_(b),
  "$*": (a: Json, b: Json): number => number_(a) * number_(b),
} as const;

function equal(a: Json, b: Json): boolean {
  if (a === null || b === null) return a === b;
  if (typeof a !== typeof b || typeof a === "object") {
    throw new ConditionError(`it compares ${kindOf(a)} with ${kindOf(b)}`);
  }
  return a === b;
}

function order(a: Json, b: Json): number {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === "string" && typeof b === "string") return a < b ? -1 : a > b ? 1 : 0;
  throw new ConditionError(`it puts ${kindOf(a)} and ${kindOf(b)} in order`);
}

function number_(value: Json | undefined): number {
  if (typeof value === "number") return value;
  throw new ConditionError(`it wants a number and got ${kindOf(value)}`);
}

function text_(value: Json | undefined): string {
  if (typeof value === "string") return value;
  throw new ConditionError(`it wants text and got ${kindOf(value)}`);
}

function kindOf(value: Json | undefined): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "string":
      return "text";
    case "number":
      return "a number";
    case "boolean":
      return "true or false";
    case "object":
      return "an object";
    default:
      return "nothing";
  }
}

import type { Json } from "../shared/json.ts";
import { glob } from "./glob.ts";
import { PLACE_FUNCTIONS } from "./places.ts";
import { isWithin, parseWindow, problemOfWindow, problemOfZone } from "./time-window.ts";
import { ConditionError, kindOf, number_, text_ } from "./values.ts";

/**
 * What conditions may call, and what their operators mean. Nothing converts: text is never a number, and nothing but
 * true is true. What cannot be answered throws, and a condition that throws denies.
 */

export type StaticType = "boolean" | "number" | "text" | "list" | "object" | "unknown";

export type SafeFunction = {
  /** Of its fixed arguments; `rest` may follow any number of times. */
  readonly parameters: readonly StaticType[];
  readonly rest?: StaticType;
  readonly returns: "boolean" | "number";
  readonly usage: string;
  readonly call: (...values: Json[]) => boolean | number;
  /** What is wrong with an argument that is written out, if anything; known before any call. */
  readonly problemOf?: (i: number, written: string) => string | undefined;
};

/** Documented in policies/README.md. */
export const FUNCTIONS: Readonly<Record<string, SafeFunction>> = {
  glob: {
    parameters: ["text", "text"],
    returns: "boolean",
    usage: "glob(r.args.path, '/data/*')",
    call: (text, pattern) => glob(text_(text), text_(pattern)),
  },
  ...PLACE_FUNCTIONS,
  timeWindow: {
    parameters: ["object", "text"],
    rest: "text",
    returns: "boolean",
    usage: "timeWindow(r.time, 'Mon-Fri 08:00-18:00', 'Europe/Berlin')",
    call: (time, window, zone) => {
      const ms = (time as { unix_ms?: Json } | null)?.unix_ms;
      return isWithin(number_(ms), parseWindow(text_(window)), zone === undefined ? "UTC" : text_(zone));
    },
    problemOf: (i, written) => (i === 1 ? problemOfWindow(written) : i === 2 ? problemOfZone(written) : undefined),
  },
  between: {
    parameters: ["number", "number", "number"],
    returns: "boolean",
    usage: "between(r.args.amount, 1, 100)",
    call: (value, low, high) => number_(value) >= number_(low) && number_(value) <= number_(high),
  },
  oneOf: {
    parameters: ["unknown", "unknown"],
    rest: "unknown",
    returns: "boolean",
    usage: "oneOf(r.impact, 'medium', 'high')",
    call: (value, ...options) => options.some((option) => equal(value ?? null, option)),
  },
  contains: {
    parameters: ["list", "unknown"],
    returns: "boolean",
    usage: "contains(r.labels, 'private-data')",
    call: (list, value) => list_("contains", list).includes(value ?? null),
  },
  within: {
    parameters: ["list", "unknown"],
    rest: "unknown",
    returns: "boolean",
    usage: "within(r.args.regions, 'eu-west', 'eu-north')",
    call: (list, ...options) => list_("within", list).every((item) => options.some((option) => equal(item, option))),
  },
  has: {
    parameters: ["object", "text"],
    returns: "boolean",
    usage: "has(r.args, 'note')",
    call: (object, key) => {
      if (kindOf(object) !== "an object") throw new ConditionError(`has() wants an object and got ${kindOf(object)}`);
      return Object.hasOwn(object as object, text_(key));
    },
  },
  count: {
    parameters: ["list"],
    returns: "number",
    usage: "count(r.args.passengers) <= 5",
    call: (list) => list_("count", list).length,
  },
  countWhere: {
    parameters: ["list", "text", "text"],
    returns: "number",
    usage: "countWhere(r.args.payments, 'id', 'gift_card_*') <= 3",
    call: (list, field, pattern) =>
      list_("countWhere", list).filter((item) => glob(text_(fieldOf(item, text_(field))), text_(pattern))).length,
  },
  sum: {
    parameters: ["list", "text"],
    returns: "number",
    usage: "sum(r.args.payments, 'amount') <= 500",
    call: (list, field) =>
      list_("sum", list).reduce<number>((total, item) => total + number_(fieldOf(item, text_(field))), 0),
  },
};

/** What operators and field reads are compiled to: names that no condition can spell. */
export const CHECKED = {
  $field(object: Json | undefined, key: string, path: string): Json {
    return fieldOf(object, key, path);
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

function fieldOf(object: Json | undefined, key: string, path = key): Json {
  if (typeof object !== "object" || object === null || !Object.hasOwn(object, key)) {
    throw new ConditionError(`it reads ${path}, which this call does not have`);
  }
  return (object as Record<string, Json>)[key] ?? null;
}

function list_(name: string, value: Json | undefined): readonly Json[] {
  if (!Array.isArray(value)) throw new ConditionError(`${name}() wants a list and got ${kindOf(value)}`);
  return value;
}

import type { Json } from "../shared/json.ts";

/** The values that conditions work on. Nothing converts. */

/** A condition that has no answer; the message goes on as "rule … could not be evaluated: <message>". */
export class ConditionError extends Error {
  override readonly name = "ConditionError";
}

/** What reading a written-out argument says is wrong with it, if anything. */
export function problemOf(read: () => unknown): string | undefined {
  try {
    read();
    return undefined;
  } catch (error) {
    if (error instanceof ConditionError) return error.message;
    throw error;
  }
}

export function number_(value: Json | undefined): number {
  if (typeof value === "number") return value;
  throw new ConditionError(`it wants a number and got ${kindOf(value)}`);
}

export function text_(value: Json | undefined): string {
  if (typeof value === "string") return value;
  throw new ConditionError(`it wants text and got ${kindOf(value)}`);
}

export function kindOf(value: Json | undefined): string {
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

import { hash } from "node:crypto";
import canonicalize from "canonicalize";

/**
 * JSON as it is hashed. Arguments are what a person approves and what a permit binds, so two readers must never see
 * two meanings: duplicate keys, numbers that a double cannot hold exactly, and lone surrogates are refused.
 */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

/** What is wrong with a text that should have been JSON; `path` as `a.b[2]`, empty for the whole. */
export class JsonError extends Error {
  override readonly name = "JsonError";
  readonly path: string;
  constructor(path: string, message: string) {
    super(message);
    this.path = path;
  }
}

export const MAX_DEPTH = 64;

/** @throws JsonError saying what and where. */
export function parseJson(text: string): Json {
  let value: Json;
  try {
    value = JSON.parse(text, refuseUnsafeNumber);
  } catch (error) {
    if (error instanceof JsonError) throw error;
    throw new JsonError("", `It is not JSON: ${error instanceof Error ? error.message : String(error)}.`);
  }
  const keys = checkShape(value, "", 0);
  if (countKeys(text) !== keys) throw new JsonError("", "An object has the same key twice; keep one of them.");
  return value;
}

/** RFC 8785. The value must have come from parseJson or be built of plain data. */
export function canonicalJson(value: Json): string {
  const text = canonicalize(value);
  if (text === undefined) throw new Error("canonicalJson was handed something that is not JSON");
  return text;
}

export function sha256Hex(data: string | Uint8Array): string {
  return hash("sha256", data, "hex");
}

function refuseUnsafeNumber(key: string, value: Json, context?: { source?: string }): Json {
  if (typeof value !== "number") return value;
  const integerText = context?.source !== undefined && /^-?\d+$/.test(context.source);
  if (!Number.isFinite(value) || (integerText && !Number.isSafeInteger(value))) {
    throw new JsonError(key, `The number ${context?.source ?? value} cannot be held exactly; send it as a string.`);
  }
  return value;
}

/** Counts the keys of all objects; refuses what canonical JSON or our own limits exclude. */
function checkShape(value: Json, path: string, depth: number): number {
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new JsonError(path, "A string has half of a surrogate pair; send valid Unicode.");
    return 0;
  }
  if (value === null || typeof value !== "object") return 0;
  if (depth === MAX_DEPTH) throw new JsonError(path, `It is nested deeper than ${MAX_DEPTH} levels; flatten it.`);
  let keys = 0;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) keys += checkShape(value[i], `${path}[${i}]`, depth + 1);
    return keys;
  }
  for (const [key, item] of Object.entries(value)) {
    const at = path === "" ? key : `${path}.${key}`;
    if (key === "__proto__") throw new JsonError(at, "The key __proto__ is refused; rename it.");
    if (!key.isWellFormed()) throw new JsonError(at, "A key has half of a surrogate pair; send valid Unicode.");
    keys += 1 + checkShape(item, at, depth + 1);
  }
  return keys;
}

/**
 * How many keys the text spells. In valid JSON a colon outside a string follows exactly one key, so a count above the
 * parsed value's own number of keys means that one was spelled twice.
 */
function countKeys(text: string): number {
  let keys = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === 0x3a) keys++;
    else if (c === 0x22) {
      for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++;
    }
  }
  return keys;
}

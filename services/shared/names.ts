import { RpcError } from "./rpc/errors.ts";

/**
 * Names of tenants, agents, sessions, users, tools' owners and runners. One shape, so that each can be a part of a
 * stream name, of a NATS subject and of a label on a container without escaping.
 */
export const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/;

/** Dotted lower-case names of tools: `airline.search_direct_flight`. */
export const TOOL_NAME = /^[a-z][a-z0-9_-]{0,62}(\.[a-z][a-z0-9_-]{0,62}){0,3}$/;

/** A tool's name, or all names that begin so: `airline.*`. */
export const TOOL_PATTERN = /^[a-z][a-z0-9_-]{0,62}(\.[a-z][a-z0-9_-]{0,62}){0,3}(\.\*)?$/;

/** Whether one of the patterns names the tool. */
export function namesTool(patterns: readonly string[], tool: string): boolean {
  return patterns.some((pattern) =>
    pattern.endsWith(".*") ? tool.startsWith(pattern.slice(0, -1)) : pattern === tool,
  );
}

/** @throws RpcError INVALID_ARGUMENT naming the field. */
export function parseName(field: string, value: string): string {
  if (NAME.test(value)) return value;
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: value === "" ? "FIELD_MISSING" : "FIELD_INVALID",
    field,
    message:
      value === ""
        ? `Set ${field}: it is missing.`
        : `Change ${field}: use 1 to 64 letters, digits, '-' or '_', the first a letter or digit.`,
  });
}

import type { Json, JsonObject } from "../shared/json.ts";

/**
 * Tools as TypeScript, for programs that call them: a declaration file made from the manifests' JSON Schemas. What a
 * schema says beyond TypeScript's types stays a matter of the schema, which the broker checks at every call.
 */

export type DeclaredTool = {
  readonly name: string;
  readonly description: string;
  /** JSON Schema 2020-12. */
  readonly schema: JsonObject;
  readonly needsApproval: boolean;
};

/** A .d.ts of `tools` as an isolate sees it, with these tools and no others. */
export function declare(tools: readonly DeclaredTool[]): string {
  const root: Branch = { tools: [], below: new Map() };
  for (const tool of tools) place(root, tool.name.split("."), tool);
  const body = linesOf(root, 1).join("\n");
  return `${HEAD}\ndeclare const tools: {\n${body === "" ? "" : `${body}\n`}};\n`;
}

const HEAD = `/** What a call fails with. It did not run where stage is set; reason is a word for programs, message one for people. */
declare class ToolError extends Error {
  readonly code: string;
  readonly reason: string;
  readonly stage?: string;
  readonly field?: string;
  readonly callId?: string;
  readonly retryAfterMs?: number;
}

/** The value the program was given. */
declare const input: any;
`;

/** `airline.search` is at airline, then search; a name can be a tool and the beginning of others. */
type Branch = { readonly tools: DeclaredTool[]; readonly below: Map<string, Branch> };

function place(branch: Branch, [first, ...rest]: readonly string[], tool: DeclaredTool): void {
  if (first === undefined) {
    branch.tools.push(tool);
    return;
  }
  const next = branch.below.get(first) ?? { tools: [], below: new Map() };
  branch.below.set(first, next);
  place(next, rest, tool);
}

function linesOf(branch: Branch, depth: number): string[] {
  const indent = "  ".repeat(depth);
  return [...branch.below].flatMap(([name, next]) => {
    const [tool] = next.tools;
    const inside = next.below.size === 0 ? undefined : ["{", ...linesOf(next, depth + 1), `${indent}}`].join("\n");
    const called = tool === undefined ? undefined : `(args: ${typeOf(tool.schema)}) => Promise<any>`;
    const type = called !== undefined && inside !== undefined ? `(${called}) & ${inside}` : (called ?? inside);
    return [...(tool === undefined ? [] : [`${indent}/** ${remark(tool)} */`]), `${indent}${key(name)}: ${type};`];
  });
}

function remark({ description, needsApproval }: DeclaredTool): string {
  return comment(needsApproval ? `${description} A person may be asked first.` : description);
}

/** On one line, and not able to end the comment it stands in. */
function comment(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll("*/", "* /").trim();
}

function key(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name);
}

const MAX_DEPTH = 32;

/** The type of the values that fit; unknown where the schema says it by means that TypeScript has not. */
function typeOf(schema: Json | undefined, depth = 0): string {
  if (schema === false) return "never";
  if (typeof schema !== "object" || schema === null || Array.isArray(schema) || depth > MAX_DEPTH) return "unknown";
  const { const: constant, enum: allowed, type, anyOf, oneOf, allOf } = schema as JsonObject;
  if (constant !== undefined) return literal(constant);
  if (Array.isArray(allowed)) return union(allowed.map(literal));
  const choices = anyOf ?? oneOf;
  if (Array.isArray(choices)) return union(choices.map((each) => typeOf(each, depth + 1)));
  if (Array.isArray(allOf)) return allOf.map((each) => `(${typeOf(each, depth + 1)})`).join(" & ") || "unknown";
  const types = Array.isArray(type) ? type : [type];
  return union(types.map((each) => typeOfKind(each, schema as JsonObject, depth)));
}

function typeOfKind(kind: Json | undefined, schema: JsonObject, depth: number): string {
  switch (kind) {
    case "string":
    case "boolean":
    case "null":
      return kind;
    case "number":
    case "integer":
      return "number";
    case "array":
      return `Array<${typeOf(schema["items"], depth + 1)}>`;
    case "object":
      return objectOf(schema, depth);
    default:
      return schema["properties"] === undefined ? "unknown" : objectOf(schema, depth);
  }
}

function objectOf(schema: JsonObject, depth: number): string {
  const { properties, required, additionalProperties } = schema;
  const names = Array.isArray(required) ? required : [];
  const fields = Object.entries((properties ?? {}) as JsonObject).map(([name, property]) => {
    const about = (property as JsonObject | null)?.["description"];
    const said = typeof about === "string" ? `/** ${comment(about)} */ ` : "";
    return `${said}${key(name)}${names.includes(name) ? "" : "?"}: ${typeOf(property, depth + 1)}`;
  });
  if (additionalProperties !== false) fields.push("[key: string]: unknown");
  return fields.length === 0 ? "{}" : `{ ${fields.join("; ")} }`;
}

function literal(value: Json): string {
  return typeof value === "object" && value !== null ? "unknown" : JSON.stringify(value);
}

function union(types: readonly string[]): string {
  const distinct = [...new Set(types)];
  return distinct.length === 0 ? "never" : distinct.join(" | ");
}

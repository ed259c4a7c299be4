import { canonicalJson, type Json, type JsonObject, parseJson, sha256Hex } from "../shared/json.ts";
import { MASKED, type Mask } from "../shared/mask.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Tool } from "./catalog.ts";
import { signatureOf } from "./guard/signature.ts";
import type { Call } from "./model.ts";
import { resolveArguments } from "./request.ts";

/**
 * Arguments as people see them, and back. Masked is what the tool's schema calls writeOnly (or a password), what bears
 * the name of a secret, and every secret that this Interlock knows, wherever it is spelt.
 */

const SECRET_NAME = /(^|[_-])(password|passwd|secret|token|api[_-]?key|authorization|credentials?|private[_-]?key)$/i;

export function maskArguments(argumentsJson: string, tool: Tool, mask: Mask): string {
  return canonicalJson(masked(JSON.parse(argumentsJson) as Json, tool.manifest.arguments, mask));
}

/**
 * The call with a reviewer's arguments, which were edited as they were shown: what is still masked there is what it was.
 * @throws RpcError INVALID_ARGUMENT naming the field, when they do not fit the tool or change a part of a secret.
 */
export function withEdit(call: Call, tool: Tool, editedJson: string, mask: Mask): Call {
  const original = JSON.parse(call.argumentsJson) as Json;
  const shown = masked(original, tool.manifest.arguments, mask);
  const edited = resolveArguments(tool, JSON.stringify(unmasked(parseEdit(editedJson), shown, original, "")));
  const argumentsJson = canonicalJson(edited);
  const signature = signatureOf(tool.manifest, edited, argumentsJson);
  return { ...call, signature, argumentsJson, argumentsHash: sha256Hex(argumentsJson) };
}

function parseEdit(text: string): Json {
  try {
    return parseJson(text);
  } catch (error) {
    throw invalid("", error instanceof Error ? error.message : String(error));
  }
}

function masked(value: Json, schema: unknown, mask: Mask): Json {
  const rules = isObject(schema) ? schema : {};
  if (rules["writeOnly"] === true || rules["format"] === "password") return MASKED;
  if (typeof value === "string") return mask(value);
  if (Array.isArray(value)) return value.map((item) => masked(item, rules["items"], mask));
  if (!isObject(value)) return value;
  const properties = isObject(rules["properties"]) ? rules["properties"] : {};
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => {
      const isSecret = SECRET_NAME.test(name) && (typeof item === "string" || typeof item === "number");
      const own = Object.hasOwn(properties, name) ? properties[name] : undefined;
      return [mask(name), isSecret ? MASKED : masked(item as Json, own, mask)];
    }),
  );
}

function unmasked(edited: Json, shown: Json | undefined, original: Json | undefined, path: string): Json {
  if (shown !== undefined && original !== undefined && canonicalJson(edited) === canonicalJson(shown)) return original;
  if (typeof edited === "string") {
    if (!edited.includes(MASKED)) return edited;
    throw invalid(path, `leave what is ${MASKED} whole, or write all of it anew`);
  }
  if (Array.isArray(edited)) {
    const [was, is] = [Array.isArray(shown) ? shown : [], Array.isArray(original) ? original : []];
    return edited.map((item, i) => unmasked(item, was[i], is[i], `${path}[${i}]`));
  }
  if (!isObject(edited)) return edited;
  const [was, is] = [isObject(shown) ? shown : {}, isObject(original) ? original : {}];
  return Object.fromEntries(
    Object.entries(edited as JsonObject).map(([name, item]) => {
      const at = path === "" ? name : `${path}.${name}`;
      const known = Object.hasOwn(was, name) && Object.hasOwn(is, name);
      return [
        name,
        unmasked(item, known ? (was[name] as Json) : undefined, known ? (is[name] as Json) : undefined, at),
      ];
    }),
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function invalid(path: string, what: string): RpcError {
  const field = path === "" ? "arguments_json" : `arguments_json.${path}`;
  const message = `Change ${field}: ${what.replace(/\.$/, "")}.`;
  return new RpcError({ code: "INVALID_ARGUMENT", reason: "ARGUMENTS_INVALID", field, message });
}

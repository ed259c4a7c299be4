import type { ExecuteRequest } from "../../proto/interlock/v1/broker_pb.ts";
import { canonicalJson, JsonError, type JsonObject, parseJson, sha256Hex } from "../shared/json.ts";
import { NAME, parseName, TOOL_NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller } from "../shared/rpc/types.ts";
import type { Catalog, Tool } from "./catalog.ts";
import type { Heard } from "./guard/provenance.ts";
import { signatureOf } from "./guard/signature.ts";
import type { Ancestor, Call, Principal } from "./model.ts";
import { demandGrant, refuseCircle } from "./nested.ts";

/** Requests as they come in, parsed into calls that name a tool that exists and arguments that fit it. */

export const MAX_ARGUMENT_BYTES = 256 << 10;
const MAX_WAIT_MS = 3_600_000;

export type Agent = Extract<Caller, { kind: "agent" }>;

export type ToolRequest = Pick<ExecuteRequest, "tool" | "argumentsJson" | "idempotencyKey"> &
  Partial<Pick<ExecuteRequest, "userInput">>;

/** @throws RpcError PERMISSION_DENIED: only agents ask for tools. */
export function parseAgent(caller: Caller): Agent {
  if (caller.kind === "agent") return caller;
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "AGENTS_ONLY",
    message: "Only agents call tools; use an agent's key.",
    metadata: { stage: "authenticate" },
  });
}

/** @throws RpcError naming the field. */
export function parsePrincipal(agent: Agent, session: string, user: string): Principal {
  return atStage("authenticate", () => ({
    tenant: agent.tenant,
    agent: agent.agent,
    session: parseName("session", session),
    user: user === "" ? "" : parseName("user", user),
  }));
}

/** How long the caller waits for people, ms. @throws RpcError */
export function parseWait(wait: ExecuteRequest["wait"]): number {
  if (wait === undefined) return 0;
  const ms = Number(wait.seconds) * 1000 + wait.nanos / 1e6;
  if (ms >= 0 && ms <= MAX_WAIT_MS) return ms;
  return atStage("resolve", () => {
    throw invalid("wait", "Change wait: it is between 0 and 3600 seconds.");
  });
}

/** @throws RpcError naming the field and the mend; its metadata names the stage. */
export function resolveCall(
  request: ToolRequest,
  context: {
    principal: Principal;
    catalog: Catalog;
    callId: string;
    nowMs: number;
    /** Of a call that a program makes. */
    ancestors?: readonly Ancestor[];
  },
): { call: Call; tool: Tool } {
  return atStage("resolve", () => {
    const { principal, catalog, callId, nowMs, ancestors } = context;
    if (ancestors !== undefined) demandGrant(request.tool, ancestors, catalog.find);
    const tool = findTool(catalog, request.tool);
    const idempotencyKey = parseKey(request.idempotencyKey);
    const args = parseArguments(request.argumentsJson);
    const problem = tool.problemOf(args);
    if (problem !== undefined) {
      const field = problem.path === "" ? "arguments_json" : `arguments_json.${problem.path}`;
      const message = `Change ${field}: it ${problem.message}. ListTools shows the schema of ${request.tool}.`;
      throw new RpcError({ code: "INVALID_ARGUMENT", reason: "ARGUMENTS_INVALID", field, message });
    }
    const argumentsJson = canonicalJson(args);
    const argumentsHash = sha256Hex(argumentsJson);
    const names = { tool: tool.manifest.name, toolDigest: tool.digest, idempotencyKey, createdMs: nowMs };
    if (ancestors !== undefined) refuseCircle({ tool: names.tool, argumentsHash }, ancestors);
    const nested = ancestors === undefined ? {} : { ancestors };
    const signature = signatureOf(tool.manifest, args, argumentsJson);
    const more = { signature, ...nested, ...parseUserInput(request.userInput) };
    return { call: { callId, principal, ...names, argumentsHash, argumentsJson, ...more }, tool };
  });
}

/** @throws RpcError NOT_FOUND */
export function findTool(catalog: Catalog, name: string): Tool {
  if (name === "")
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "FIELD_MISSING",
      field: "tool",
      message: "Set tool: it is missing.",
    });
  const tool = TOOL_NAME.test(name) ? catalog.find(name) : undefined;
  if (tool !== undefined) return tool;
  const shown = TOOL_NAME.test(name) ? `There is no tool ${name}` : "There is no tool of that name";
  throw new RpcError({
    code: "NOT_FOUND",
    reason: "TOOL_UNKNOWN",
    field: "tool",
    message: `${shown}; ListTools names those you may call.`,
  });
}

function parseKey(key: string): string {
  if (key === "" || NAME.test(key) || /^[\x21-\x7e]{1,128}$/.test(key)) return key;
  throw invalid("idempotency_key", "Change idempotency_key: use 1 to 128 printable ASCII characters without spaces.");
}

const MAX_HEARD_CHARS = 64 << 10;
const MAX_HEARD_HASHES = 1_000;

function parseUserInput(input: ToolRequest["userInput"]): { readonly heard?: Heard } {
  if (input === undefined) return {};
  const { text, tokenHashes: hashes } = input;
  if (text.length > MAX_HEARD_CHARS) {
    throw invalid("user_input.text", `Send less in user_input.text: at most ${MAX_HEARD_CHARS} characters.`);
  }
  if (hashes.length > MAX_HEARD_HASHES || hashes.some((hash) => !/^[0-9a-f]{64}$/.test(hash))) {
    const message = `Change user_input.token_hashes: send at most ${MAX_HEARD_HASHES} SHA-256 hashes, 64 lower-case hex digits each.`;
    throw invalid("user_input.token_hashes", message);
  }
  return { heard: { text, hashes } };
}

function parseArguments(text: string): JsonObject {
  if (Buffer.byteLength(text) > MAX_ARGUMENT_BYTES) {
    const message = `Send less in arguments_json: it is ${Buffer.byteLength(text)} bytes, at most ${MAX_ARGUMENT_BYTES} are allowed.`;
    throw new RpcError({ code: "INVALID_ARGUMENT", reason: "ARGUMENTS_TOO_LARGE", field: "arguments_json", message });
  }
  try {
    const value = parseJson(text === "" ? "{}" : text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const field = error.path === "" ? "arguments_json" : `arguments_json.${error.path}`;
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "ARGUMENTS_INVALID",
      field,
      message: `Change ${field}: ${error.message}`,
    });
  }
  const message = "Change arguments_json: it must be one JSON object.";
  throw new RpcError({ code: "INVALID_ARGUMENT", reason: "ARGUMENTS_INVALID", field: "arguments_json", message });
}

function invalid(field: string, message: string): RpcError {
  return new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field, message });
}

/** Says in the error at which stage it was refused. */
function atStage<T>(stage: string, parse: () => T): T {
  try {
    return parse();
  } catch (thrown) {
    const error = RpcError.from(thrown);
    throw new RpcError({
      code: error.code,
      reason: error.reason,
      message: error.message,
      ...(error.field === undefined ? {} : { field: error.field }),
      metadata: { ...error.metadata, stage },
      cause: error.cause,
    });
  }
}

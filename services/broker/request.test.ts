import { create } from "@bufbuild/protobuf";
import { DurationSchema } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { sha256Hex } from "../shared/json.ts";
import { canonicalManifest, manifestSchema } from "../shared/manifest.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller } from "../shared/rpc/types.ts";
import type { Catalog, Tool } from "./catalog.ts";
import { NOW_MS, PRINCIPAL } from "./fixture.ts";
import { signatureOf } from "./guard/signature.ts";
import { MAX_ARGUMENT_BYTES, parseAgent, parsePrincipal, parseWait, resolveCall, type ToolRequest } from "./request.ts";

const MANIFEST = manifestSchema.parse({
  name: "orders.lookup",
  version: "1.0.0",
  description: "Looks up an order.",
  impact: "low",
  arguments: { type: "object" },
  sandbox: { kind: "builtin", name: "noop" },
});
const TOOL: Tool = {
  manifest: MANIFEST,
  ...canonicalManifest(MANIFEST),
  models: {},
  problemOf: (args) => ("bad" in args ? { path: "bad", message: "is not an argument of this tool" } : undefined),
};
const CATALOG: Catalog = { size: 1, find: (name) => (name === "orders.lookup" ? TOOL : undefined), list: () => [TOOL] };
const AGENT = { kind: "agent", tenant: "demo", agent: "demo-agent" } as const;

function resolve(change: Partial<ToolRequest>) {
  const request = { tool: "orders.lookup", argumentsJson: "{}", idempotencyKey: "", ...change };
  return resolveCall(request, { principal: PRINCIPAL, catalog: CATALOG, callId: "call-1", nowMs: NOW_MS });
}

function errorOf(action: () => unknown): RpcError {
  try {
    action();
  } catch (error) {
    if (error instanceof RpcError) return error;
    throw error;
  }
  throw new Error("nothing was wrong with it");
}

describe("who asks", () => {
  test.each<Caller>([
    { kind: "person", tenant: "demo", name: "olga", roles: ["operator"], groups: [] },
    { kind: "service", name: "edge" },
  ])("a $kind calls no tools", (caller) => {
    expect(errorOf(() => parseAgent(caller))).toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "AGENTS_ONLY",
      metadata: { stage: "authenticate" },
    });
  });

  test("tenant and agent are the caller's, session and user the request's", () => {
    expect(parsePrincipal(AGENT, "s1", "uma")).toEqual({ ...PRINCIPAL, user: "uma" });
    expect(parsePrincipal(parseAgent(AGENT), "s1", "")).toEqual(PRINCIPAL);
  });

  test.each([
    ["", "", "session", "FIELD_MISSING"],
    ["a.b", "", "session", "FIELD_INVALID"],
    ["-a", "", "session", "FIELD_INVALID"],
    ["s\n", "", "session", "FIELD_INVALID"],
    ["s".repeat(65), "", "session", "FIELD_INVALID"],
    ["s1", "uma@example.com", "user", "FIELD_INVALID"],
  ])("session %j of user %j", (session, user, field, reason) => {
    expect(errorOf(() => parsePrincipal(AGENT, session, user))).toMatchObject({
      ...{ code: "INVALID_ARGUMENT", reason, field, metadata: { stage: "authenticate" } },
      message: expect.stringContaining(field),
    });
  });
});

describe("how long people are waited for", () => {
  const wait = (seconds: number, nanos = 0) => create(DurationSchema, { seconds: BigInt(seconds), nanos });

  test.each([
    [undefined, 0],
    [wait(0), 0],
    [wait(1, 500_000_000), 1_500],
    [wait(3600), 3_600_000],
  ])("%#", (given, ms) => expect(parseWait(given)).toBe(ms));

  test.each([
    ["before it began", wait(-1)],
    ["a nanosecond before it began", wait(0, -1)],
    ["over an hour", wait(3600, 1_000_000)],
    ["for ever", wait(Number.MAX_SAFE_INTEGER)],
  ])("not %s", (_, given) => {
    expect(errorOf(() => parseWait(given))).toMatchObject({
      ...{ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field: "wait", metadata: { stage: "resolve" } },
      message: "Change wait: it is between 0 and 3600 seconds.",
    });
  });
});

describe("what is refused, with reason, field and mend", () => {
  const deep = `${'{"a":'.repeat(70)}1${"}".repeat(70)}`;
  test.each<[string, Partial<ToolRequest>, string, string, RegExp]>([
    ["no tool", { tool: "" }, "FIELD_MISSING", "tool", /^Set tool/],
    ["an unknown tool", { tool: "orders.refund" }, "TOOL_UNKNOWN", "tool", /no tool orders\.refund; ListTools/],
    [
      "a tool's name of another shape",
      { tool: "Orders\u0000" },
      "TOOL_UNKNOWN",
      "tool",
      /^There is no tool of that name;/,
    ],
    ["a name that every object has", { tool: "constructor" }, "TOOL_UNKNOWN", "tool", /no tool constructor/],
    ["a key with a space", { idempotencyKey: "a b" }, "FIELD_INVALID", "idempotency_key", /1 to 128 printable/],
    ["a key with a line break", { idempotencyKey: "ab\n" }, "FIELD_INVALID", "idempotency_key", /1 to 128 printable/],
    ["a key that is too long", { idempotencyKey: "k".repeat(129) }, "FIELD_INVALID", "idempotency_key", /1 to 128/],
    ["no JSON", { argumentsJson: "{" }, "ARGUMENTS_INVALID", "arguments_json", /It is not JSON/],
    ["JSON5", { argumentsJson: "{a:1}" }, "ARGUMENTS_INVALID", "arguments_json", /It is not JSON/],
    ["two objects", { argumentsJson: "{}{}" }, "ARGUMENTS_INVALID", "arguments_json", /It is not JSON/],
    ["NaN", { argumentsJson: '{"a":NaN}' }, "ARGUMENTS_INVALID", "arguments_json", /It is not JSON/],
    ["an array", { argumentsJson: "[]" }, "ARGUMENTS_INVALID", "arguments_json", /must be one JSON object/],
    ["null", { argumentsJson: "null" }, "ARGUMENTS_INVALID", "arguments_json", /must be one JSON object/],
    ["a text", { argumentsJson: '"a"' }, "ARGUMENTS_INVALID", "arguments_json", /must be one JSON object/],
    ["the same key twice", { argumentsJson: '{"a":1,"a":2}' }, "ARGUMENTS_INVALID", "arguments_json", /same key twice/],
    [
      "an unsafe integer",
      { argumentsJson: '{"a":9007199254740993}' },
      "ARGUMENTS_INVALID",
      "arguments_json.a",
      /held exactly/,
    ],
    ["a number too large", { argumentsJson: '{"a":1e999}' }, "ARGUMENTS_INVALID", "arguments_json.a", /held exactly/],
    ["half a character", { argumentsJson: '{"a":"\\ud800"}' }, "ARGUMENTS_INVALID", "arguments_json.a", /surrogate/],
    ["__proto__", { argumentsJson: '{"__proto__":{}}' }, "ARGUMENTS_INVALID", "arguments_json.__proto__", /is refused/],
    ["a deep nest", { argumentsJson: deep }, "ARGUMENTS_INVALID", `arguments_json${".a".repeat(64)}`, /nested deeper/],
    [
      "what the schema does not allow",
      { argumentsJson: '{"bad":1}' },
      "ARGUMENTS_INVALID",
      "arguments_json.bad",
      /ListTools/,
    ],
  ])("%s", (_, change, reason, field, message) => {
    const error = errorOf(() => resolve(change));
    expect([error.reason, error.field, error.metadata["stage"]]).toEqual([reason, field, "resolve"]);
    expect(error.message).toMatch(message);
    expect(error.code).toBe(reason === "TOOL_UNKNOWN" ? "NOT_FOUND" : "INVALID_ARGUMENT");
  });

  test("too many bytes, counted as bytes and before they are read", () => {
    const most = `{"a":"${"ü".repeat((MAX_ARGUMENT_BYTES - 8) / 2)}"}`;
    expect(Buffer.byteLength(most)).toBe(MAX_ARGUMENT_BYTES);
    expect(resolve({ argumentsJson: most }).call.callId).toBe("call-1");
    const error = errorOf(() => resolve({ argumentsJson: ` ${most}` }));
    expect([error.reason, error.field]).toEqual(["ARGUMENTS_TOO_LARGE", "arguments_json"]);
    expect(error.message).toContain(`${MAX_ARGUMENT_BYTES + 1} bytes, at most ${MAX_ARGUMENT_BYTES}`);
  });
});

describe("what is taken", () => {
  test("a call of the tool's digest, with canonical arguments and their hash", () => {
    const { call, tool } = resolve({ argumentsJson: ' { "b" : 1.0e1, "a" : "\\u00fc" } ', idempotencyKey: "k:1/~" });
    expect(call).toEqual({
      callId: "call-1",
      principal: PRINCIPAL,
      tool: "orders.lookup",
      toolDigest: TOOL.digest,
      argumentsJson: '{"a":"ü","b":10}',
      argumentsHash: sha256Hex('{"a":"ü","b":10}'),
      idempotencyKey: "k:1/~",
      createdMs: NOW_MS,
      signature: signatureOf(TOOL.manifest, { a: "ü", b: 10 }, '{"a":"ü","b":10}'),
    });
    expect(tool).toBe(TOOL);
  });

  test("no arguments are an empty object", () => expect(resolve({ argumentsJson: "" }).call.argumentsJson).toBe("{}"));

  test("any object hashes the same however it is written, and only then", () => {
    const object = fc.dictionary(fc.string(), fc.jsonValue({ noUnicodeString: false }), { noNullPrototype: true });
    fc.assert(
      fc.property(object, (value) => {
        const text = JSON.stringify(value);
        fc.pre(text.isWellFormed() && !text.includes("__proto__") && !/\\ud[89a-f]/.test(text) && !("bad" in value));
        fc.pre(Object.values(value).every((item) => typeof item !== "number" || Math.abs(item) < 2 ** 53));
        const reversed = Object.fromEntries(Object.entries(value).toReversed());
        const one = attempt(() => resolve({ argumentsJson: text }).call);
        const two = attempt(() => resolve({ argumentsJson: JSON.stringify(reversed, undefined, 2) }).call);
        expect(two).toEqual(one);
        if (one !== undefined) expect(JSON.parse(one.argumentsJson)).toEqual(JSON.parse(text));
      }),
    );
  });
});

/** Numbers deep inside may be unsafe: then both ways of writing it are refused. */
function attempt<T>(action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    expect(error).toMatchObject({ reason: "ARGUMENTS_INVALID" });
    return undefined;
  }
}

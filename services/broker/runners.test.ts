import { create, fromBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { PermitClaimsSchema, RunnerService, type RunRequest } from "../../proto/interlock/v1/runner_pb.ts";
import { silentLog } from "../shared/log.ts";
import { canonicalManifest, manifestSchema } from "../shared/manifest.ts";
import { type CodeName, RpcError } from "../shared/rpc/errors.ts";
import { localClient } from "../shared/rpc/local.ts";
import { service } from "../shared/rpc/service.ts";
import type { Handlers } from "../shared/rpc/types.ts";
import { newSigningKeyPem, type Signer, signerFromPem, verifierOf } from "../shared/signing.ts";
import type { Tool } from "./catalog.ts";
import { ALLOW, callOf, decisionOf, resultOf } from "./fixture.ts";
import { toRunResult } from "./run-wire.ts";
import { Runners, wallMsOf } from "./runners.ts";

const MANIFEST = manifestSchema.parse({
  name: "orders.lookup",
  version: "1.0.0",
  description: "Looks up an order.",
  impact: "low",
  arguments: { type: "object" },
  sandbox: { kind: "builtin", name: "noop" },
  limits: { wall_ms: 2_000 },
});
const TOOL: Tool = { manifest: MANIFEST, ...canonicalManifest(MANIFEST), models: {}, problemOf: () => undefined };
const CALL = callOf({ toolDigest: TOOL.digest });
const SIGNER = signerFromPem(newSigningKeyPem());

type Run = Handlers<typeof RunnerService>["run"];

/** A runner that answers the first run by the first of these, the second by the second, and so on. */
function newRunners(runs: readonly Run[], signer: Signer = SIGNER) {
  const seen: RunRequest[] = [];
  let boots = 0;
  const handlers: Handlers<typeof RunnerService> = {
    describe: async () => ({ runnerId: "runner-1", bootId: `boot-${++boots}`, capabilities: [] }),
    answer: async () => ({}),
    run: (request, context) => {
      const run = runs[seen.push(request) - 1];
      if (run === undefined) throw new Error("it was not expected to run again");
      return run(request, context);
    },
  };
  const runner = localClient<typeof RunnerService>(service(RunnerService, handlers), {
    caller: { kind: "service", name: "broker" },
  });
  let ids = 0;
  const runners = new Runners({ runner, signer, newId: () => `permit-${++ids}`, now: Date.now, log: silentLog });
  const output: string[] = [];
  const onOutput = (stderr: boolean, text: string) => output.push(`${stderr ? "err" : "out"} ${text}`);
  const onCall = async ({ argumentsJson }: { readonly argumentsJson: string }) =>
    ({ case: "resultJson", value: argumentsJson }) as const;
  const run = (signal: AbortSignal = new AbortController().signal, decision = ALLOW) =>
    runners.run(CALL, TOOL, decision, { signal, onOutput, onCall });
  const claims = () => seen.map(({ permit }) => fromBinary(PermitClaimsSchema, permit?.payload ?? new Uint8Array()));
  return { run, seen, claims, output };
}

const good: Run = async function* () {
  yield { kind: { case: "output", value: { stderr: false, text: "one" } } };
  yield { kind: { case: "output", value: { stderr: true, text: "two" } } };
  yield { kind: { case: "result", value: toRunResult(resultOf()) } };
};

function failing(code: CodeName, reason: string, after = 0): Run {
  return async function* () {
    for (let i = 0; i < after; i++) yield { kind: { case: "output", value: { stderr: false, text: "one" } } };
    throw new RpcError({ code, reason, message: "No." });
  };
}

test("a run comes back with its output and its result, under a permit for exactly this call", async () => {
  const { run, seen, claims, output } = newRunners([good]);
  const limits = { wallMs: 500, cpuMs: 0, memoryBytes: 0, outputBytes: 7, pids: 0 };
  const decision = decisionOf({ obligations: { limits } });
  expect(await run(undefined, decision)).toEqual({ kind: "ran", result: resultOf() });
  expect(output).toEqual(["out one", "err two"]);
  expect(seen[0]).toMatchObject({ manifestJson: TOOL.json, argumentsJson: CALL.argumentsJson });
  const permit = seen[0]?.permit;
  if (permit === undefined) throw new Error("it had no permit");
  expect(verifierOf([SIGNER.publicKey]).verify("permit", permit)).toBe("ok");
  expect(claims()[0]).toMatchObject({
    ...{ permitId: "permit-1", tool: "orders.lookup", toolDigest: TOOL.digest, argumentsHash: CALL.argumentsHash },
    ...{ runnerId: "runner-1", bootId: "boot-1", ref: { session: "s1", callId: "call-1" }, egress: [] },
    limits: { wallMs: 500n, outputBytes: 7n, cpuMs: 0n },
    principal: create(PermitClaimsSchema, { principal: CALL.principal }).principal,
  });
});

describe("what is certain not to have started", () => {
  test.each<[CodeName, string]>([
    ["INVALID_ARGUMENT", "MANIFEST_INVALID"],
    ["PERMISSION_DENIED", "PERMIT_EXPIRED"],
    ["FAILED_PRECONDITION", "SANDBOX_UNAVAILABLE"],
    ["RESOURCE_EXHAUSTED", "RUNNER_BUSY"],
    ["UNIMPLEMENTED", "UNIMPLEMENTED"],
    ["UNAUTHENTICATED", "UNAUTHENTICATED"],
  ])("%s %s", async (code, reason) => {
    const { run, seen } = newRunners([failing(code, reason)]);
    expect(await run()).toMatchObject({ kind: "not_started", error: { code, reason } });
    expect(seen).toHaveLength(1);
  });

  test("a call whose caller has gone before it was sent", async () => {
    const gone = new AbortController();
    const sign: Signer["sign"] = async (purpose, payload) => {
      const signed = await SIGNER.sign(purpose, payload);
      gone.abort(new RpcError({ code: "CANCELLED", reason: "CANCELLED", message: "enough" }));
      return signed;
    };
    const { run, seen } = newRunners([good], { ...SIGNER, sign });
    expect(await run(gone.signal)).toMatchObject({ kind: "not_started", error: { code: "CANCELLED" } });
    expect(seen).toEqual([]);
  });

  test("a call whose permit cannot be signed", async () => {
    const { run, seen } = newRunners([good], { ...SIGNER, sign: () => Promise.reject(new Error("no key")) });
    expect(await run()).toMatchObject({ kind: "not_started", error: { code: "INTERNAL" } });
    expect(seen).toEqual([]);
  });
});

describe("what may have started", () => {
  test.each<[CodeName, string, number]>([
    ["UNAVAILABLE", "CONNECTION_LOST", 0],
    ["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 0],
    ["UNKNOWN", "SANDBOX_LOST", 0],
    ["INTERNAL", "INTERNAL", 0],
    ["CANCELLED", "CANCELLED", 0],
    ["DATA_LOSS", "STREAM_GAP", 0],
    ["RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE", 0],
    ["FAILED_PRECONDITION", "SANDBOX_UNAVAILABLE", 1], // it has already shown something
    ["UNAVAILABLE", "RUNNER_STOPPING", 1],
  ])("%s %s after %i answers is lost, and not tried again", async (code, reason, after) => {
    const { run, seen } = newRunners([failing(code, reason, after)]);
    expect(await run()).toMatchObject({ kind: "lost", error: { code, reason } });
    expect(seen).toHaveLength(1);
  });

  test("a run that ends without a result", async () => {
    const { run } = newRunners([async function* () {}]);
    expect(await run()).toMatchObject({ kind: "lost", error: { reason: "RESULT_MISSING" } });
  });
});

describe("a runner that is another than it was", () => {
  test.each<[CodeName, string]>([
    ["PERMISSION_DENIED", "PERMIT_WRONG_RUNNER"],
    ["UNAVAILABLE", "NO_RESPONDER"],
    ["UNAVAILABLE", "RUNNER_STOPPING"],
  ])("%s %s is asked once more, under a permit for its new boot", async (code, reason) => {
    const { run, claims } = newRunners([failing(code, reason), good]);
    expect((await run()).kind).toBe("ran");
    expect(claims().map(({ permitId, bootId }) => `${permitId} ${bootId}`)).toEqual([
      "permit-1 boot-1",
      "permit-2 boot-2",
    ]);
  });

  test("is asked no third time", async () => {
    const wrong = failing("PERMISSION_DENIED", "PERMIT_WRONG_RUNNER");
    const { run, seen } = newRunners([wrong, wrong, good]);
    expect(await run()).toMatchObject({ kind: "not_started", error: { reason: "PERMIT_WRONG_RUNNER" } });
    expect(seen).toHaveLength(2);
  });
});

test.each([
  [0, 2_000],
  [500, 500],
  [9_000, 2_000],
])("an obligation of %i ms within a manifest's 2000 leaves %i", (wallMs, want) => {
  const limits = { wallMs, cpuMs: 0, memoryBytes: 0, outputBytes: 0, pids: 0 };
  expect(wallMsOf(TOOL, decisionOf({ obligations: { limits } }))).toBe(want);
});

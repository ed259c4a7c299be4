import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { PermitClaimsSchema, RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import { RunEnd } from "../../proto/interlock/v1/types_pb.ts";
import { sha256Hex } from "../shared/json.ts";
import { silentLog } from "../shared/log.ts";
import { canonicalManifest, manifestSchema } from "../shared/manifest.ts";
import { localClient } from "../shared/rpc/local.ts";
import { service } from "../shared/rpc/service.ts";
import type { Caller } from "../shared/rpc/types.ts";
import { newSigningKeyPem, signerFromPem } from "../shared/signing.ts";
import type { Backend, RunIo, RunResult } from "./backend.ts";
import { openBuiltinBackend } from "./builtin.ts";
import { startRunner } from "./service.ts";

const signer = signerFromPem(newSigningKeyPem());
const BROKER: Caller = { kind: "service", name: "broker" };

/** Runs until it is killed or told to end, and says when it began. */
class Sandbox implements Backend {
  readonly kind = "isolate";
  readonly #begun = Promise.withResolvers<void>();
  readonly #end = Promise.withResolvers<"exited" | "killed">();
  killed = 0;
  disposed = false;
  say: RunIo["onOutput"] = () => {};

  begun = (): Promise<void> => this.#begun.promise;
  finish = (): void => this.#end.resolve("exited");
  fail = (): void => this.#end.reject(new Error("the engine is gone"));
  describe = async () => [];
  check = (): void => {};

  async run(_: unknown, { onOutput, signal }: RunIo): Promise<RunResult> {
    onOutput("stdout", "begun\n");
    this.say = onOutput;
    this.#begun.resolve();
    signal.addEventListener("abort", () => this.#end.resolve("killed"));
    const end = await this.#end.promise;
    if (end === "killed") this.killed++;
    return {
      ...{ end, exitCode: 1, resultJson: "", stdout: "begun\n", stderr: "", truncated: false, error: "" },
      usage: { wallMs: 1, cpuMs: 1, peakMemoryBytes: 1, outputBytes: 6 },
      enforcement: { kind: "isolate", isolationClass: "process", enforced: [], missing: [] },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.disposed = true;
  }
}

async function start(options: { maxConcurrent?: number; drainMs?: number } = {}) {
  const blocking = new Sandbox();
  const runner = await startRunner({
    runnerId: "r1",
    bootId: "b1",
    backends: [openBuiltinBackend(), blocking],
    trustedKeys: [signer.publicKey],
    maxConcurrent: options.maxConcurrent ?? 4,
    drainMs: options.drainMs ?? 50,
    now: Date.now,
    log: silentLog,
  });
  const here = service(RunnerService, runner.handlers);
  return { runner, blocking, client: localClient<typeof RunnerService>(here, { caller: BROKER }), here };
}

const ISOLATE = { kind: "isolate", code: "return 1" };
let last = 0;

async function requestOf(
  sandbox: unknown = { kind: "builtin", name: "echo" },
  change: { egress?: string[]; tool?: string } = {},
) {
  const { egress = [], tool = "test.tool" } = change;
  const { json: manifestJson, digest } = canonicalManifest(
    manifestSchema.parse({
      name: "test.tool",
      version: "1.0.0",
      description: "A test's.",
      impact: "low",
      arguments: { type: "object" },
      sandbox,
      egress,
    }),
  );
  const argumentsJson = '{"a":1}';
  const id = `n${++last}`;
  const claims = create(PermitClaimsSchema, {
    permitId: id,
    ref: { session: "s1", callId: id },
    principal: { tenant: "demo", agent: "a", session: "s1", user: "" },
    ...{ tool, egress, toolDigest: digest, runnerId: "r1", bootId: "b1" },
    argumentsHash: sha256Hex(argumentsJson),
    limits: {},
    expireTime: timestampFromMs(Date.now() + 10_000),
  });
  return { permit: await signer.sign("permit", toBinary(PermitClaimsSchema, claims)), manifestJson, argumentsJson };
}

type Client = Awaited<ReturnType<typeof start>>["client"];

async function all(client: Client, request: Awaited<ReturnType<typeof requestOf>>, signal?: AbortSignal) {
  const seen = [];
  for await (const { kind } of client.run(request, signal === undefined ? {} : { signal })) seen.push(kind);
  return seen;
}

describe("a run", () => {
  it("ends with exactly one result, last", async () => {
    const { client } = await start();
    const seen = await all(client, await requestOf());
    expect(seen.map((kind) => kind.case)).toEqual(["result"]);
    expect(seen[0]?.value).toMatchObject({ end: RunEnd.EXITED, resultJson: '{"a":1}' });
  });

  it("streams what its sandbox prints as it prints it, and then its one result", async () => {
    const { client, blocking } = await start();
    const stream = client.run(await requestOf(ISOLATE))[Symbol.asyncIterator]();
    // The sandbox still runs when its first output has come.
    expect((await stream.next()).value?.kind).toMatchObject({
      case: "output",
      value: { text: "begun\n", stderr: false },
    });
    blocking.say("stderr", "more\n");
    expect((await stream.next()).value?.kind).toMatchObject({
      case: "output",
      value: { text: "more\n", stderr: true },
    });
    blocking.finish();
    expect((await stream.next()).value?.kind).toMatchObject({ case: "result", value: { end: RunEnd.EXITED } });
    expect((await stream.next()).done).toBe(true);
  });

  it("whose sandbox is at fault is an error and no result, and gives its place back", async () => {
    const { client, blocking } = await start({ maxConcurrent: 1 });
    const going = all(client, await requestOf(ISOLATE));
    await blocking.begun();
    blocking.fail();
    await expect(going).rejects.toMatchObject({ code: "INTERNAL" });
    expect((await all(client, await requestOf())).length).toBe(1);
  });

  it("is killed when its caller goes", async () => {
    const { client, blocking } = await start();
    const stop = new AbortController();
    const going = all(client, await requestOf(ISOLATE), stop.signal);
    await blocking.begun();
    stop.abort();
    await expect(going).rejects.toMatchObject({ code: "CANCELLED" });
    await expect.poll(() => blocking.killed).toBe(1);
  });

  const refused: [what: string, sandbox: unknown, change: { egress?: string[]; tool?: string }, reason: string][] = [
    [
      "a kind that this runner does not run",
      { kind: "container", image: "python", command: ["true"] },
      {},
      "SANDBOX_UNAVAILABLE",
    ],
    [
      "a way out, which there is not yet",
      { kind: "builtin", name: "noop" },
      { egress: ["example.com:443"] },
      "EGRESS_UNSUPPORTED",
    ],
    [
      "another tool than its permit's",
      { kind: "builtin", name: "noop" },
      { tool: "other.tool" },
      "PERMIT_TOOL_MISMATCH",
    ],
  ];
  it.each(refused)("is refused for %s", async (_, sandbox, change, reason) => {
    const { client } = await start();
    await expect(all(client, await requestOf(sandbox, change))).rejects.toMatchObject({ reason });
  });

  it.each<Caller>([
    { kind: "agent", tenant: "demo", agent: "a" },
    { kind: "person", tenant: "demo", name: "olga", roles: ["operator"], groups: [] },
  ])("is for services only", async (caller) => {
    const { here } = await start();
    const client = localClient<typeof RunnerService>(here, { caller });
    await expect(all(client, await requestOf())).rejects.toMatchObject({ reason: "SERVICES_ONLY" });
  });

  it("waits its turn by being refused, with a time to come again", async () => {
    const { client, blocking } = await start({ maxConcurrent: 1 });
    const stop = new AbortController();
    const going = all(client, await requestOf(ISOLATE), stop.signal).catch(() => {});
    await blocking.begun();
    const busy = all(client, await requestOf());
    await expect(busy).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "RUNNER_BUSY", retryAfterMs: 100 });
    stop.abort();
    await going;
    await expect.poll(async () => (await all(client, await requestOf()).catch(() => [])).length).toBe(1);
  });
});

it("stops: takes nothing new, kills what does not end, then lets its sandboxes go", async () => {
  const { runner, client, blocking } = await start({ drainMs: 30 });
  const going = all(client, await requestOf(ISOLATE));
  await blocking.begun();
  const stopped = runner[Symbol.asyncDispose]();
  await expect(all(client, await requestOf())).rejects.toMatchObject({ reason: "RUNNER_STOPPING" });
  expect((await going).at(-1)?.value).toMatchObject({ end: RunEnd.KILLED });
  await stopped;
  expect([blocking.killed, blocking.disposed]).toEqual([1, true]);
});

it("stops: what ends in time is not killed", async () => {
  const { runner, client, blocking } = await start({ drainMs: 60_000 });
  const going = all(client, await requestOf(ISOLATE));
  await blocking.begun();
  const stopped = runner[Symbol.asyncDispose]();
  expect(blocking.disposed).toBe(false);
  blocking.finish();
  expect((await going).at(-1)?.value).toMatchObject({ end: RunEnd.EXITED });
  await stopped;
  expect([blocking.killed, blocking.disposed]).toEqual([0, true]);
});

it("says who it is, and at which boot", async () => {
  const { client } = await start();
  const { runnerId, bootId, capabilities } = await client.describe({});
  expect([runnerId, bootId, capabilities.map(({ kind }) => kind)]).toEqual(["r1", "b1", ["builtin"]]);
});

import { once } from "node:events";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BrokerService } from "../../proto/interlock/v1/broker_pb.ts";
import { SERVICE_NAMES, startInterlock } from "../../services/interlock.ts";
import { configSchema, readConfig } from "../../services/shared/config.ts";
import { silentLog } from "../../services/shared/log.ts";
import { openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import { initialiseState } from "../../services/shared/state-dir.ts";
import { FileProblems } from "../../services/shared/yaml-file.ts";
import { type Clients, connectTo, heldOf, refusalOf } from "../support/clients.ts";
import { type Running, startEmbedded } from "../support/interlock.ts";

/** What is refused gets one clear error, and leaves nothing half done. */

const REQUESTS: [
  name: string,
  request: { session?: string; tool?: string; argumentsJson?: string },
  code: string,
  reason: string,
  field: string | undefined,
][] = [
  ["an unknown tool", { tool: "no.such_tool" }, "NOT_FOUND", "TOOL_UNKNOWN", "tool"],
  ["no tool", { tool: "" }, "INVALID_ARGUMENT", "FIELD_MISSING", "tool"],
  ["no session", { session: "" }, "INVALID_ARGUMENT", "FIELD_MISSING", "session"],
  ["a session with a dot", { session: "a.b" }, "INVALID_ARGUMENT", "FIELD_INVALID", "session"],
  ["arguments that are no JSON", { argumentsJson: "{" }, "INVALID_ARGUMENT", "ARGUMENTS_INVALID", "arguments_json"],
  [
    "arguments with a key twice",
    { argumentsJson: '{"program":"1","program":"2"}' },
    "INVALID_ARGUMENT",
    "ARGUMENTS_INVALID",
    "arguments_json",
  ],
  ["arguments that are a list", { argumentsJson: "[]" }, "INVALID_ARGUMENT", "ARGUMENTS_INVALID", "arguments_json"],
  [
    "a field missing from the schema",
    { argumentsJson: '{"input":1}' },
    "INVALID_ARGUMENT",
    "ARGUMENTS_INVALID",
    "arguments_json.program",
  ],
  [
    "a field of the wrong type",
    { argumentsJson: '{"program":7,"input":1}' },
    "INVALID_ARGUMENT",
    "ARGUMENTS_INVALID",
    "arguments_json.program",
  ],
];

describe("a request that is wrong", () => {
  let running: Running;
  let clients: Clients;
  beforeAll(async () => {
    running = await startEmbedded({ config: { runner: { containers: "off" } } });
    clients = connectTo(running);
  });
  afterAll(async () => {
    await clients[Symbol.asyncDispose]();
    await running[Symbol.asyncDispose]();
  });

  it.each(REQUESTS)("names the field for %s", async (_, request, code, reason, field) => {
    const whole = {
      session: "bad-input",
      tool: "math.compute",
      argumentsJson: '{"program":"return 1","input":1}',
      ...request,
    };
    const refusal = await refusalOf(clients.agent.execute(whole));
    expect([refusal.code, refusal.reason, refusal.field]).toEqual([code, reason, field]);
    expect(refusal.message.length).toBeGreaterThan(10);
    expect(await heldOf(clients)).toEqual({});
  });

  it("refuses 5 MiB of arguments, at the message or at the field", async () => {
    const argumentsJson = JSON.stringify({ program: "x".repeat(5 << 20), input: 1 });
    const refusal = await refusalOf(clients.agent.execute({ session: "big", tool: "math.compute", argumentsJson }));
    expect(["RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"]).toContain(refusal.code);
  });

  it("refuses 300 KiB of arguments by name", async () => {
    const argumentsJson = JSON.stringify({ program: "x".repeat(300 << 10), input: 1 });
    const refusal = await refusalOf(clients.agent.execute({ session: "big", tool: "math.compute", argumentsJson }));
    expect([refusal.reason, refusal.field]).toEqual(["ARGUMENTS_TOO_LARGE", "arguments_json"]);
  });

  it.each([
    ["missing", undefined, "KEY_MISSING"],
    ["wrong", "ilk_wrong", "KEY_UNKNOWN"],
  ])("refuses a %s key", async (_, apiKey, reason) => {
    await using channel = openGrpcChannel({ address: running.address, ...(apiKey === undefined ? {} : { apiKey }) });
    const refusal = await refusalOf(channel.client(BrokerService).listTools({}));
    expect([refusal.code, refusal.reason]).toEqual(["UNAUTHENTICATED", reason]);
  });

  it("lets no agent near what is not for agents", async () => {
    await using channel = openGrpcChannel({ address: running.address, apiKey: running.keys.agent });
    const refusal = await refusalOf(
      channel.client(BrokerService).setKillSwitch({ scope: "everything", on: false, reason: "please" }),
    );
    expect(refusal.code).toBe("PERMISSION_DENIED");
  });

  it("answers for a stranger's call id as for one that never was", async () => {
    const { call } = await clients.agent.execute({
      session: "mine",
      tool: "math.compute",
      argumentsJson: '{"program":"return 1","input":1}',
    });
    const callId = call?.ref?.callId ?? "";
    const never = await refusalOf(
      clients.agent.get({ ref: { session: "mine", callId: "01900000-0000-7000-8000-000000000000" } }),
    );
    const elsewhere = await refusalOf(clients.agent.get({ ref: { session: "another", callId } }));
    expect([elsewhere.code, elsewhere.reason]).toEqual(["NOT_FOUND", never.reason]);
  });
});

describe("a process that cannot start", () => {
  const folders: string[] = [];
  const folder = (): string => {
    const made = mkdtempSync(join(tmpdir(), "interlock-bad-"));
    folders.push(made);
    return made;
  };
  afterAll(() => {
    for (const made of folders) rmSync(made, { recursive: true, force: true });
  });
  const start = async (config: Parameters<typeof configSchema.parse>[0]) => {
    const parsed = configSchema.parse(config);
    initialiseState(parsed);
    await using _ = await startInterlock(parsed, { services: SERVICE_NAMES, log: silentLog });
  };

  it("names file, line and field of a configuration that is wrong", () => {
    const file = join(folder(), "interlock.yaml");
    writeFileSync(file, "listen: 127.0.0.1:0\nrunner:\n  id: runner 1\n");
    expect(() => readConfig(file)).toThrow(`${file}:3: runner.id: use 1 to 64 letters`);
  });

  const damages: [what: string, file: string, text: string, want: RegExp][] = [
    [
      "a manifest",
      "tools/math.compute.yaml",
      "name: math.compute\nversion: one\n",
      /math\.compute\.yaml:\d+: version: /,
    ],
    ["a rule", "policy.csv", "p, demo, role:analyst, data.*, true, perhaps, \n", /policy\.csv:1: .*/],
    ["budgets", "budgets.yaml", "budgets:\n  - name: a\n    tenant: demo\n    scope: planet\n", /budgets\.yaml:\d+: /],
  ];
  it.each(damages)("names file, line and field of %s that is wrong", async (_, file, text, want) => {
    const policies = folder();
    cpSync("policies", policies, { recursive: true });
    writeFileSync(join(policies, file), text);
    const problems = await start({
      state: folder(),
      policies,
      listen: "127.0.0.1:0",
      runner: { containers: "off" },
    }).catch((error) => error);
    expect(problems).toBeInstanceOf(FileProblems);
    expect((problems as FileProblems).message).toMatch(want);
  });

  it("names a port that is in use", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    await expect(
      start({ state: folder(), listen: `127.0.0.1:${port}`, runner: { containers: "off" } }),
    ).rejects.toThrow(`127.0.0.1:${port}`);
    other.close();
  });

  it("names a NATS that does not answer", async () => {
    await expect(
      start({ state: folder(), listen: "127.0.0.1:0", nats: { url: "nats://127.0.0.1:1" } }),
    ).rejects.toThrow("nats://127.0.0.1:1");
  });
});

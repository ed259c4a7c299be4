import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { BrokerService, type Call, CallState } from "../../proto/interlock/v1/broker_pb.ts";
import type { CallRef } from "../../proto/interlock/v1/types_pb.ts";
import { openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import type { Client } from "../../services/shared/rpc/types.ts";
import { type Running, startEmbedded, startOverNats } from "../support/interlock.ts";

/** Programs that call tools, through every stage of the pipeline, embedded and over NATS. */

const POLICY = `
p, demo, *, code.*, allow, true, Anyone may run programs.
p, demo, *, t.echo, allow, true, Anyone may echo.
p, demo, *, t.deep, allow, true, Anyone may go deeper.
p, demo, *, t.long, allow, true, Anyone may wait for somebody.
p, demo, *, t.slow, allow, true, Anyone may wait.
p, demo, *, t.dear, allow, true, Anyone may spend.
p, demo, *, t.fails, allow, true, Anyone may fail.
p, demo, *, t.ask, require_approval, true, A lead says yes first., approver_group=support-leads;quorum=1;ttl=1h
p, demo, *, t.never, deny, true, Nobody may.
`;
const BUDGETS = "budgets:\n  - { name: usd, tenant: demo, scope: session, unit: usd_micros, limit: 1_000 }\n";

const PROGRAM = "sandbox: { kind: isolate, code_argument: program, calls: [t.*, code.run], max_calls: 30 }";
const TOOLS: Readonly<Record<string, string>> = {
  "code.run": PROGRAM,
  "code.narrow": "sandbox: { kind: isolate, code_argument: program, calls: [t.deep, code.run] }",
  "code.wait": "sandbox: { kind: isolate, code_argument: program, calls: [t.*], nested_approval: wait }",
  "t.echo": "sandbox: { kind: isolate, code: return input }",
  "t.deep": "sandbox: { kind: isolate, code: 'return await tools.t.echo({ from: \"deep\" })', calls: [t.echo] }",
  "t.slow": "sandbox: { kind: isolate, code: 'await new Promise(() => {})' }",
  "t.long":
    "sandbox: { kind: isolate, code: 'return await tools.t.ask({ why: \"long\" })', calls: [t.ask], nested_approval: wait }",
  "t.dear": "price: { usd_micros: 400 }\nsandbox: { kind: isolate, code: return 1 }",
  "t.fails": "sandbox: { kind: isolate, code: throw new Error('as it does') }",
  "t.ask": "sandbox: { kind: isolate, code: return 'done' }",
  "t.never": "sandbox: { kind: isolate, code: return 1 }",
};

function writePolicies(): string {
  const folder = mkdtempSync(join(tmpdir(), "interlock-nested-"));
  mkdirSync(join(folder, "tools"));
  cpSync("policies/model.conf", join(folder, "model.conf"));
  writeFileSync(join(folder, "policy.csv"), POLICY);
  writeFileSync(join(folder, "budgets.yaml"), BUDGETS);
  for (const [name, more] of Object.entries(TOOLS)) {
    const limits = ["t.slow", "t.long", "code.wait"].includes(name) ? 60_000 : 20_000;
    const head = `name: ${name}\nversion: 1.0.0\ndescription: Of a test.\nimpact: low\narguments: { type: object }`;
    writeFileSync(
      join(folder, "tools", `${name}.yaml`),
      `${head}\nlimits: { wall_ms: ${limits}, cpu_ms: 2000, memory_bytes: 33554432 }\n${more}\n`,
    );
  }
  return folder;
}

const caught = "(error) => [error.name, error.reason, error.stage]";

const refusals: [what: string, program: string, want: unknown][] = [
  [
    "a tool that policy denies",
    `return await tools.t.never({}).catch(${caught})`,
    ["ToolError", "POLICY_DENIED", "decide"],
  ],
  [
    "a tool that needs people",
    `return await tools.t.ask({}).catch(${caught})`,
    ["ToolError", "APPROVAL_NEEDED", "approve"],
  ],
  ["a tool that fails", `return await tools.t.fails({}).catch(${caught})`, ["ToolError", "TOOL_FAILED", null]],
  ["no tool", `return await tools.t.nothing({}).catch(${caught})`, ["ToolError", "TOOL_UNKNOWN", "resolve"]],
  [
    "what its manifest does not grant",
    `return await tools.code.wait({}).catch(${caught})`,
    ["ToolError", "CALL_NOT_GRANTED", "resolve"],
  ],
  [
    "a budget that is used up",
    `const said = []; for (let i = 0; i < 3; i++) said.push(await tools.t.dear({ i }).catch((error) => error.reason)); return said`,
    [1, 1, "BUDGET_EXHAUSTED"],
  ],
  [
    "the same again and again",
    `const said = []; for (let i = 0; i < 4; i++) said.push(await tools.t.echo({}).then(() => "ran", (error) => error.reason)); return said`,
    ["ran", "ran", "LOOP_DETECTED", "LOOP_DETECTED"],
  ],
];
function resultOf(call: Call): unknown {
  expect({ state: call.state, error: call.result?.error }).toEqual({ state: CallState.SUCCEEDED, error: "" });
  return JSON.parse(call.result?.resultJson ?? "null");
}

describe.each([
  ["embedded", startEmbedded],
  ["over NATS", startOverNats],
] as const)("%s, a program", (_, start) => {
  let policies = "";
  let running: Running;
  let channel: ReturnType<typeof openGrpcChannel>;
  let people: ReturnType<typeof openGrpcChannel>;
  beforeAll(async () => {
    policies = writePolicies();
    running = await start({ config: { policies, runner: { containers: "off" } } });
    channel = openGrpcChannel({ address: running.address, apiKey: running.keys.agent });
    people = openGrpcChannel({ address: running.address, apiKey: running.keys.reviewer });
  });
  afterAll(async () => {
    await channel[Symbol.asyncDispose]();
    await people[Symbol.asyncDispose]();
    await running[Symbol.asyncDispose]();
    rmSync(policies, { recursive: true, force: true });
  });

  let sessions = 0;
  async function run(program: string, tool = "code.run", session = `s-${++sessions}`): Promise<Call> {
    const argumentsJson = JSON.stringify({ program });
    const { call } = await channel.client(BrokerService).execute({ session, tool, argumentsJson });
    if (call === undefined) throw new Error("no call");
    return call;
  }

  it("calls tools, one after another and at once", async () => {
    const program = `
      const first = await tools.t.echo({ n: 1 });
      const more = await Promise.all([2, 3, 4].map((n) => tools.t.echo({ n })));
      return [first, ...more].map(({ n }) => n);`;
    expect(resultOf(await run(program))).toEqual([1, 2, 3, 4]);
  });

  it("calls tools whose programs call tools, each with its parent on record", async () => {
    const call = await run("return await tools.t.deep({})");
    expect(resultOf(call)).toEqual({ from: "deep" });
    expect(call.parent).toBeUndefined();
  });

  it.each(refusals)("can catch the refusal of %s", async (what, program, want) => {
    const got = resultOf(await run(program));
    if (what === "the same again and again") expect((got as string[]).at(-1)).toBe("LOOP_DETECTED");
    else expect(got).toEqual(want);
  });

  it("has no more rights than what called it: a grant missing anywhere above is a refusal", async () => {
    const inner = `return await tools.t.echo({}).catch((error) => [error.reason, error.message])`;
    const outer = `return await tools.code.run({ program: ${JSON.stringify(inner)} })`;
    expect(resultOf(await run(outer, "code.narrow"))).toEqual([
      "CALL_NOT_GRANTED",
      expect.stringContaining("code.narrow may not call t.echo"),
    ]);
  });

  it("that calls itself is stopped at the depth that calls may nest", async () => {
    const wrap = (inner: string): string =>
      `return await tools.code.run({ program: ${JSON.stringify(inner)} }).catch((error) => error.reason)`;
    const bottom = "return typeof tools";
    expect(resultOf(await run(wrap(wrap(bottom))))).toBe("function");
    // Three calls down there is nothing more to call.
    expect(resultOf(await run(wrap(wrap(wrap(bottom)))))).toBe("undefined");
  });

  it("may make so many calls and no more", async () => {
    const call = await run("for (let i = 0; i < 31; i++) await tools.t.echo({ i }); return 1");
    expect(call.state).toBe(CallState.FAILED);
    expect(call.result?.limit).toMatchObject({ name: "tool_calls", allowed: 30n, used: 31n });
  });

  it("in a storm of calls at once gets each answer to its own call", async () => {
    const program =
      "const all = await Promise.all(Array.from({ length: 30 }, (_, i) => tools.t.echo({ i }))); return all.map(({ i }) => i)";
    const calls = await Promise.all([1, 2, 3].map(() => run(program)));
    for (const call of calls) expect(resultOf(call)).toEqual(Array.from({ length: 30 }, (_, i) => i));
  });

  it("that is cancelled takes the calls it made with it, running or waiting for people, at every level", async () => {
    const going = run("return await tools.t.long({})", "code.wait");
    await cancelFromAbove(channel.client(BrokerService), people.client(ApprovalsService), going);
  });

  it("may wait for people where its manifest lets it, and gets the value once they have said yes", async () => {
    const going = run("return await tools.t.ask({ why: 'asked' })", "code.wait");
    const approvals = people.client(ApprovalsService);
    const find = async () => (await approvals.listApprovals({})).approvals.find(({ tool }) => tool === "t.ask");
    await expect.poll(find, { timeout: 10_000 }).toBeDefined();
    const { approvalId = "", argumentsHash = "" } = (await find()) ?? {};
    await approvals.approve({ approvalId, argumentsHash });
    expect(resultOf(await going)).toBe("done");
  });
});

/** Cancels a call whose program waits for a tool whose program waits for a person. */
async function cancelFromAbove(
  broker: Client<typeof BrokerService>,
  approvals: Client<typeof ApprovalsService>,
  going: Promise<Call>,
): Promise<void> {
  const open = async () => (await approvals.listApprovals({})).approvals.find(({ tool }) => tool === "t.ask");
  await expect.poll(open, { timeout: 10_000 }).toBeDefined();
  const get = async (ref: CallRef | undefined) => (await broker.get(ref === undefined ? {} : { ref })).call;
  const asking = await get((await open())?.ref);
  const long = await get(asking?.parent);
  const outer = await get(long?.parent);
  expect([asking?.state, long?.state, outer?.state, outer?.tool]).toEqual([
    ...[CallState.PENDING_APPROVAL, CallState.RUNNING, CallState.RUNNING],
    "code.wait",
  ]);
  await broker.cancel({ ...(outer?.ref && { ref: outer.ref }), reason: "Enough." });
  expect((await going).state).toBe(CallState.CANCELLED);
  // Each has ended before the one that made it.
  const after = await Promise.all([asking, long].map(async (each) => (await get(each?.ref))?.state));
  expect(after).toEqual([CallState.CANCELLED, CallState.CANCELLED]);
  await expect.poll(open).toBeUndefined();
}

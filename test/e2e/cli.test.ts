import { execFile, execFileSync } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Running, startEmbedded } from "../support/interlock.ts";

/** The command line as a person uses it: what it prints, and how it exits. */

const exec = promisify(execFile);

type Said = { readonly code: number; readonly stdout: string; readonly stderr: string };

async function interlock(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Said> {
  try {
    const { stdout, stderr } = await exec("bin/interlock", [...args], { env: { ...process.env, ...env } });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as Said;
    return { code, stdout, stderr };
  }
}

let running: Running;
const here = (...args: string[]) => interlock(["--address", running.address, "--state", running.state, ...args]);
beforeAll(async () => {
  running = await startEmbedded({ config: { runner: { containers: "off" } } });
});
afterAll(() => running[Symbol.asyncDispose]());

const REFUND = '{"order_id":"ord-1001","amount_usd_micros":45000000,"reason":"broken"}';

describe("a command", () => {
  const commands: [args: string[], code: number, says: RegExp][] = [
    [["tools"], 0, /math\.compute +low/],
    [["call", "math.compute", '{"program":"return 6*7"}'], 0, /result +42/],
    [["call", "math.compute", '{"program":"throw new Error(1)"}'], 1, /failed/],
    [["call", "math.compute", "{"], 2, /ARGUMENTS_INVALID/],
    [["call", "no.such_tool"], 2, /TOOL_UNKNOWN/],
    [["call", "shell.run", '{"command":"id"}'], 3, /POLICY_DENIED/],
    [["call", "orders.refund", REFUND, "--session", "cli-people"], 4, /waits for a person/],
    [["approvals", "list"], 0, /orders\.refund/],
    [["approvals", "show", "nonsense"], 2, /approval/],
    [["get", "cli/01900000-0000-7000-8000-000000000000"], 2, /CALL_NOT_FOUND/],
    [["get", "nonsense"], 2, /session/],
    [["budgets"], 0, /demo-usd/],
    [["kill", "list"], 0, /No kill switch is on/],
    [["kill", "on", "planet:earth", "--reason", "x"], 2, /scope/],
    [["policy", "check"], 0, /is sound/],
    [["audit", "verify"], 0, /The journal is whole/],
    [["audit", "tail", "--no-follow"], 0, /session\.demo\./],
    [["health"], 0, /serving/i],
    [["nonsense"], 2, /unknown command/],
    [["serve", "nonsense"], 2, /there is no service/],
  ];
  it.each(commands)("%j exits %i and says what it has to", async (args, code, says) => {
    const said = await here(...args);
    expect([said.code, said.stdout + said.stderr]).toEqual([code, expect.stringMatching(says)]);
    expect(said.stdout + said.stderr).not.toMatch(/^ {4}at /m);
  });

  it.each([
    [["tools"]],
    [["budgets"]],
    [["kill", "list"]],
    [["approvals", "list"]],
    [["audit", "verify"]],
    [["doctor"]],
    [["policy", "check"]],
  ])("%j --json prints JSON", async (args) => {
    const { code, stdout } = await here("--json", ...args);
    expect(code).toBe(0);
    for (const line of stdout.trim().split("\n")) expect(() => JSON.parse(line || "{}")).not.toThrow();
  });

  it("says so when nobody listens", async () => {
    const said = await interlock(["--address", "127.0.0.1:1", "--state", running.state, "tools"]);
    expect([said.code, said.stderr]).toEqual([5, expect.stringContaining("127.0.0.1:1")]);
  });

  it("says so when there is no key", async () => {
    const said = await interlock(["--address", running.address, "--state", "/nonexistent", "tools"]);
    expect([said.code, said.stderr]).toEqual([expect.toBeOneOf([2, 3]), expect.stringMatching(/key/)]);
  });

  it("keeps a tool's escape sequences from the terminal", async () => {
    const said = await here("call", "math.compute", '{"program":"return \\"\\\\u001b[2Jgone\\""}');
    expect(said.code).toBe(0);
    expect(said.stdout).not.toContain("\u001b");
  });
});

it("takes an approval from the question to the end", async () => {
  const asked = await here("--json", "call", "orders.refund", REFUND, "--session", "cli-story");
  const call = JSON.parse(asked.stdout) as { ref: { session: string; callId: string }; approvalId: string };
  expect((await here("approvals", "show", call.approvalId)).stdout).toContain('"order_id": "ord-1001"');
  expect((await here("approvals", "approve", call.approvalId, "--comment", "Fine.")).code).toBe(0);
  const watched = await here("watch", `${call.ref.session}/${call.ref.callId}`);
  expect([watched.code, watched.stdout]).toEqual([0, expect.stringContaining("succeeded")]);
  const again = await here("approvals", "reject", call.approvalId, "--comment", "Late.");
  expect([again.code, again.stderr]).toEqual([3, expect.stringContaining("ALREADY_DECIDED")]);
});

it("stops and lets through", async () => {
  expect((await here("kill", "on", "tool:orders.lookup", "--reason", "A test.")).code).toBe(0);
  const stopped = await here("call", "orders.lookup", '{"order_id":"ord-1001"}');
  expect([stopped.code, stopped.stderr]).toEqual([3, expect.stringContaining("KILL_SWITCH")]);
  expect((await here("kill", "off", "tool:orders.lookup")).code).toBe(0);
  expect((await here("call", "orders.lookup", '{"order_id":"ord-1001"}')).code).toBe(0);
});

it.each(["bash", "zsh", "fish"])("completes in %s", async (shell) => {
  const { code, stdout } = await interlock(["completion", shell]);
  expect(code).toBe(0);
  for (const command of ["up", "call", "approvals", "audit"]) expect(stdout).toContain(command);
  if (shell === "bash") execFileSync("bash", ["-n"], { input: stdout });
});

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { STEPS } from "../../examples/story.ts";
import { type Running, startEmbedded } from "../support/interlock.ts";

/** The demo agent as a user runs it: a process of its own, its exit code and what it prints. */

const run = promisify(execFile);
const MINUTE = 60_000;

type Said = { readonly code: number; readonly stdout: string; readonly stderr: string };

async function agent(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Said> {
  const clean = { ...process.env };
  for (const name of ["ADDRESS", "KEY", "REVIEWER_KEY", "STATE"]) delete clean[`INTERLOCK_${name}`];
  return await run("node", ["examples/agent.ts", ...args], { env: { ...clean, ...env } }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }: Said) => ({ code, stdout, stderr }),
  );
}

let running: Running;
beforeAll(async () => {
  running = await startEmbedded();
});
afterAll(() => running[Symbol.asyncDispose]());

/** What each step must show, in the order of the transcript. */
const SHOWN: Readonly<Record<(typeof STEPS)[number], readonly RegExp[]>> = {
  analyse: [/data\.analyse_csv/, /in a container|runs no containers/],
  compute: [/math\.compute/, /in an isolate/, /"primes":1229/],
  deny: [/shell\.run/, /refused at decide: POLICY_DENIED/],
  loop: [/refused at guard: LOOP_DETECTED/, /it was stopped after \d+ times/],
  refund: [/orders\.refund/, /waits for a person of support-leads/, /alice +approves it/, /it ran once/],
  budget: [/report\.summarise/, /refused at reserve: BUDGET_EXHAUSTED/],
};

describe("the demo agent", () => {
  it("shows every step and ends with 0", { timeout: 2 * MINUTE }, async () => {
    const said = await agent(["--address", running.address, "--state", running.state]);
    expect([said.code, said.stderr], said.stdout).toEqual([0, ""]);
    const [opening = "", ...parts] = said.stdout.split(/^\d+\. /m);
    expect(opening).toContain(`An agent works through Interlock at ${running.address}`);
    expect(parts.length).toBe(STEPS.length);
    for (const [index, step] of STEPS.entries()) {
      for (const shown of SHOWN[step]) expect(parts[index], step).toMatch(shown);
      expect(parts[index], step).toMatch(/=> +(ok|skipped): /);
    }
    expect(said.stdout).not.toContain("NOT AS TOLD");
    expect(said.stdout).toContain("Every step ended as told.");
  });

  it("takes address and keys from the environment, and answers in JSON", { timeout: 2 * MINUTE }, async () => {
    const said = await agent(["--json"], {
      INTERLOCK_ADDRESS: running.address,
      INTERLOCK_KEY: running.keys.agent,
      INTERLOCK_REVIEWER_KEY: running.keys.reviewer,
    });
    expect([said.code, said.stderr]).toEqual([0, ""]);
    const { passed, steps } = JSON.parse(said.stdout) as { passed: boolean; steps: { name: string; kind: string }[] };
    expect(passed).toBe(true);
    expect(steps.map((step) => step.name)).toEqual([...STEPS]);
    expect(steps.filter((step) => step.kind === "otherwise")).toEqual([]);
  });
});

describe("in one clear line, and with another exit code than 0, the demo agent says", () => {
  const inOneLine = (said: Said, what: string) => {
    expect(said.code).toBeGreaterThan(0);
    expect(said.stdout).toBe("");
    expect(said.stderr.trim().split("\n")).toEqual([expect.stringContaining(what)]);
  };

  it("that Interlock is down", async () => {
    const address = await freeAddress();
    const said = await agent(["--address", address, "--state", running.state]);
    inOneLine(said, `NOT_CONNECTED: ${address} does not answer`);
    expect(said.stderr).toContain("start Interlock there");
  });

  it("that it has no key", async () => {
    const folder = mkdtempSync(join(tmpdir(), "interlock-agent-"));
    try {
      inOneLine(await agent(["--address", running.address, "--state", folder]), "there is no key for demo-agent");
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it("that nobody knows its key", async () => {
    const env = { INTERLOCK_KEY: "ilk_wrong", INTERLOCK_REVIEWER_KEY: "ilk_wrong" };
    inOneLine(await agent(["--address", running.address], env), "KEY_UNKNOWN");
  });

  it("that it does not know an option", async () => {
    inOneLine(await agent(["--bogus"]), "--bogus");
  });
});

/** Where nobody listens: what listened there has just stopped. */
async function freeAddress(): Promise<string> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("it listened at no port");
  return `127.0.0.1:${address.port}`;
}

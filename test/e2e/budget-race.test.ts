import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { RpcError } from "../../services/shared/rpc/errors.ts";
import { type Clients, connectTo, eventually, heldOf } from "../support/clients.ts";
import { type Running, startApart, startEmbedded, startOverNats } from "../support/interlock.ts";

/** 1,000 calls at once, of $0.10 each, against $5.00: exactly 50 run, whatever happens meanwhile. */

const CALLS = 1_000;
const COVERED = 50;
const DIME = 100_000;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "interlock-race-"));
  mkdirSync(join(folder, "tools"));
  cpSync("policies/model.conf", join(folder, "model.conf"));
  writeFileSync(join(folder, "policy.csv"), "p, demo, *, pay.dime, allow, true, Anyone may spend a dime.\n");
  writeFileSync(
    join(folder, "budgets.yaml"),
    `budgets:\n  - { name: five-dollars, tenant: demo, scope: tenant, unit: usd_micros, limit: ${COVERED * DIME} }\n`,
  );
  writeFileSync(
    join(folder, "tools", "pay.dime.yaml"),
    `name: pay.dime\nversion: 1.0.0\ndescription: Costs a dime.\nimpact: low\narguments: { type: object }\n` +
      `price: { usd_micros: ${DIME} }\nsandbox: { kind: builtin, name: noop }\n`,
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const config = () => ({
  policies: folder,
  runner: { builtins: true, containers: "off", max_concurrent: 2_000 } as const,
});

type Tally = { readonly ran: Set<string>; readonly refused: Map<number, RpcError>; finished: number };

/** One client: it asks until it is told yes or no. What is down, or too slow, is asked again with the same key. */
async function ask(clients: Clients, i: number, tally: Tally): Promise<void> {
  const request = {
    session: `run-${i % 20}`,
    tool: "pay.dime",
    argumentsJson: `{"i":${i}}`,
    idempotencyKey: `dime-${i}`,
  };
  const untilMs = Date.now() + 90_000;
  for (;;) {
    try {
      const { call } = await clients.agent.execute(request, { deadlineMs: Date.now() + 30_000 });
      expect(call?.state).toBe(CallState.SUCCEEDED);
      tally.ran.add(call?.ref?.callId ?? "");
      tally.refused.delete(i);
      break;
    } catch (error) {
      const refusal = RpcError.from(error);
      if (refusal.reason === "BUDGET_EXHAUSTED") {
        tally.refused.set(i, refusal);
        break;
      }
      const passing =
        ["UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED"].includes(refusal.code) || refusal.reason === "RUNNER_BUSY";
      if (!passing || Date.now() > untilMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, refusal.retryAfterMs ?? 100));
    }
  }
  tally.finished += 1;
}

const everybody = Array.from({ length: CALLS }, (_, i) => i);

async function check(clients: Clients, tally: Tally): Promise<void> {
  await eventually(
    () => heldOf(clients),
    (held) => Object.keys(held).length === 0,
    60_000,
  );
  // What a kill left held was given back since: whoever was refused for it asks once more.
  const again = tally.ran.size < COVERED ? [...tally.refused.keys()] : [];
  await Promise.all(again.map((i) => ask(clients, i, tally)));
  await eventually(
    () => heldOf(clients),
    (held) => Object.keys(held).length === 0,
    60_000,
  );
  expect([tally.ran.size, tally.refused.size]).toEqual([COVERED, CALLS - COVERED]);
  expect(new Set([...tally.refused.values()].map(({ code, reason }) => `${code} ${reason}`))).toEqual(
    new Set(["RESOURCE_EXHAUSTED BUDGET_EXHAUSTED"]),
  );
  const [refusal] = tally.refused.values();
  expect(refusal?.message).toMatch(
    /^Budget five-dollars of tenant demo has \d+ of 5000000 usd_micros left, and 100000 are asked for; /,
  );
  const { budgets } = await clients.money.listBudgets({});
  expect(budgets).toMatchObject([{ spent: 5_000_000n, held: 0n, available: 0n, limit: 5_000_000n }]);
  const { lines } = await clients.money.getStatement({ unit: "usd_micros" });
  expect(lines).toMatchObject([{ commits: BigInt(COVERED), estimated: 5_000_000n, actual: 5_000_000n }]);
}

async function race(running: Running, copies: number, meanwhile?: (tally: Tally) => Promise<void>): Promise<void> {
  await using clients = connectTo(running);
  const tally: Tally = { ran: new Set(), refused: new Map(), finished: 0 };
  const asked = everybody.flatMap((i) => Array.from({ length: copies }, () => ask(clients, i, tally)));
  await Promise.all([...asked, meanwhile?.(tally)]);
  await check(clients, tally);
}

describe("1,000 calls of $0.10 at once against $5.00", { timeout: 180_000 }, () => {
  it("embedded: exactly 50 run", async () => {
    await using running = await startEmbedded({ config: config() });
    await race(running, 1);
  });

  it("embedded, with clients that send everything three times: exactly 50 run", async () => {
    await using running = await startEmbedded({ config: config() });
    await race(running, 3);
  });

  it("over NATS: exactly 50 run", async () => {
    await using running = await startOverNats({ config: config() });
    await race(running, 1);
  });

  it("with the ledger killed five times in the middle, and clients that ask again: exactly 50 run", async () => {
    await using running = await startApart({ config: config() });
    let kills = 0;
    await race(running, 2, async (tally) => {
      for (const after of [5, 20, 40, 200, 500]) {
        await eventually(
          async () => tally.finished,
          (finished) => finished >= after,
          120_000,
        );
        await running.kill("ledger");
        kills += 1;
        await running.start("ledger");
      }
    });
    expect(kills).toBe(5);
  });

  it("with three ledger processes on the one tenant: exactly 50 run", async () => {
    await using running = await startApart({ config: config() });
    await using _second = await serveLedger(running);
    await using _third = await serveLedger(running);
    await race(running, 1);
  });
});

async function serveLedger(running: Running): Promise<AsyncDisposable> {
  const args = ["--json", "serve", "ledger", "--config", running.configFile, "--listen", "127.0.0.1:0"];
  const child: ChildProcess = spawn("bin/interlock", args, { stdio: ["ignore", "pipe", "inherit"] });
  if (child.stdout === null) throw new Error("the child has no stdout");
  await once(createInterface({ input: child.stdout }), "line");
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
  };
}

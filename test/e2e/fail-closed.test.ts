import { describe, expect, it } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import type { ServiceName } from "../../services/interlock.ts";
import { type Clients, connectTo, eventually, heldOf, refusalOf } from "../support/clients.ts";
import { startApart } from "../support/interlock.ts";

/** Whatever is down, a call does not run, says which stage stopped it, in time, and holds no money afterwards. */

const DEADLINE_MS = 8_000;

const refund = {
  tool: "orders.refund",
  argumentsJson: '{"order_id":"ord-1001","amount_usd_micros":45000000,"reason":"broken"}',
};
const compute = { tool: "math.compute", argumentsJson: '{"program":"return input + 1","input":1}' };

const cases: [down: ServiceName, call: typeof compute, stages: string[], reason: string][] = [
  ["pdp", compute, ["decide"], "PDP_UNAVAILABLE"],
  ["ledger", compute, ["reserve"], "LEDGER_UNAVAILABLE"],
  ["approvals", refund, ["approve"], "APPROVALS_UNAVAILABLE"],
  ["runner", compute, ["permit", "run"], "RUNNER_UNAVAILABLE"],
];

async function timed<T>(work: Promise<T>): Promise<{ value: T; ms: number }> {
  const started = performance.now();
  return { value: await work, ms: performance.now() - started };
}

async function succeeds(clients: Clients, session: string): Promise<void> {
  await eventually(
    () => clients.agent.execute({ session, ...compute }, { deadlineMs: Date.now() + DEADLINE_MS }),
    ({ call }) => call?.state === CallState.SUCCEEDED,
    30_000,
  );
}

describe("five processes over a real NATS", () => {
  it.each(cases)(
    "fails closed while %s is down, and recovers",
    { timeout: 90_000 },
    async (down, call, stages, reason) => {
      await using running = await startApart();
      await using clients = connectTo(running);
      await succeeds(clients, "warm");
      await running.kill(down);
      const deadlineMs = Date.now() + DEADLINE_MS;
      const { value: refusal, ms } = await timed(
        refusalOf(clients.agent.execute({ session: "s1", ...call }, { deadlineMs })),
      );
      expect(ms).toBeLessThan(DEADLINE_MS + 500);
      expect(["UNAVAILABLE", "DEADLINE_EXCEEDED"]).toContain(refusal.code);
      expect(refusal.reason).toBe(reason);
      expect(stages).toContain(refusal.metadata["stage"]);
      await running.start(down);
      await succeeds(clients, "s2");
      await eventually(
        () => heldOf(clients),
        (held) => Object.keys(held).length === 0,
        30_000,
      );
    },
  );

  it("fails closed while NATS is down, and recovers", { timeout: 90_000 }, async () => {
    await using running = await startApart();
    await using clients = connectTo(running);
    await succeeds(clients, "warm");
    await running.killNats();
    const deadlineMs = Date.now() + DEADLINE_MS;
    const { value: refusal, ms } = await timed(
      refusalOf(clients.agent.execute({ session: "s1", ...compute }, { deadlineMs })),
    );
    expect(ms).toBeLessThan(DEADLINE_MS + 500);
    expect(["UNAVAILABLE", "DEADLINE_EXCEEDED"]).toContain(refusal.code);
    expect(refusal.metadata["stage"]).toBeDefined();
    await running.startNats();
    await succeeds(clients, "s2");
    await eventually(
      () => heldOf(clients),
      (held) => Object.keys(held).length === 0,
      30_000,
    );
  });
});

import { describe, expect, test } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { RpcError } from "../../services/shared/rpc/errors.ts";
import { open, type PartName, refusalOf, SOON, settled, stateOf } from "./broker-fixture.ts";

/** What a call meets when something that it needs is not there: it does not run, its caller learns where, nothing is held. */

describe("a service that does not answer", () => {
  test.each<[PartName, string, string]>([
    ["pdp", "decide", "PDP_UNAVAILABLE"],
    ["ledger", "reserve", "LEDGER_UNAVAILABLE"],
    ["approvals", "approve", "APPROVALS_UNAVAILABLE"],
    ["runner", "permit", "RUNNER_UNAVAILABLE"],
  ])("%s: refused at %s, and the next one runs", async (name, stage, reason) => {
    const { world, execute, get } = await open();
    const tool = name === "approvals" ? "t.ask" : "t.dear";
    world.down.add(name);
    const error = await refusalOf(execute(tool, { n: 1 }));
    expect(error).toMatchObject({ code: "UNAVAILABLE", reason, metadata: { stage, session: "s1", cause: "CUT" } });
    expect(error.retryAfterMs).toBeGreaterThan(0);
    expect(error.message).toContain("did not run");
    expect(world.sandbox.ran).toEqual([]);
    expect(stateOf(await get(error.metadata["call_id"] ?? ""))).toBe("REFUSED");
    world.down.clear();
    await expect.poll(async () => Object.values(await world.money()).join(), SOON).toMatch(/^(0\/0,?)*$/);
    expect(stateOf(await execute(tool, { n: 1 }))).toBe(tool === "t.ask" ? "PENDING_APPROVAL" : "SUCCEEDED");
  });

  test("the pdp, when tools are listed", async () => {
    const { world, agent } = await open();
    world.down.add("pdp");
    expect(await refusalOf(agent.listTools({}))).toMatchObject({ code: "UNAVAILABLE", reason: "PDP_UNAVAILABLE" });
  });
});

describe("a runner", () => {
  test("that has started anew is given a permit of its own", async () => {
    const { world, execute } = await open();
    await execute("t.echo", { n: 1 });
    await world.restartRunner();
    expect(stateOf(await execute("t.echo", { n: 2 }))).toBe("SUCCEEDED");
    expect(world.sandbox.ran).toHaveLength(2);
  });

  test.each([
    ["loses a run", "UNKNOWN", "SANDBOX_LOST"],
    ["vanishes", "UNAVAILABLE", "CONNECTION_LOST"],
    ["cannot send the result", "RESOURCE_EXHAUSTED", "MESSAGE_TOO_LARGE"],
    ["has a fault", "INTERNAL", "INTERNAL"],
  ] as const)(
    "that %s leaves an outcome that is not known, which is paid and not tried again",
    async (_, code, reason) => {
      const { world, execute } = await open();
      world.sandbox.fault = new RpcError({ code, reason, message: "It broke." });
      const call = await execute("t.dear");
      expect(stateOf(call)).toBe("OUTCOME_UNKNOWN");
      expect(call.refusal?.message).toContain("It broke.");
      expect(world.receiptOf(call)).toMatchObject({ state: CallState.OUTCOME_UNKNOWN, resultHash: "" });
      expect(world.sandbox.ran).toHaveLength(1);
      await settled(world, { s1: "400/0", calls: "1/0" });
    },
  );

  test("that loses a run of an idempotent tool is asked once more, and no more than that", async () => {
    const { world, execute } = await open();
    world.sandbox.fault = new RpcError({ code: "UNKNOWN", reason: "SANDBOX_LOST", message: "It broke." });
    const answer = execute("t.safe");
    for (const runs of [1, 2]) {
      await expect.poll(() => [world.sandbox.runsOf("t.safe"), world.sandbox.holding], SOON).toEqual([runs, 1]);
      world.sandbox.letGo();
    }
    expect(stateOf(await answer)).toBe("OUTCOME_UNKNOWN");
    expect(world.sandbox.runsOf("t.safe")).toBe(2);
    await settled(world, { s1: "100/0", calls: "1/0" });
  });

  test("that refuses before it starts costs nothing", async () => {
    const { world, execute } = await open();
    world.sandbox.fault = new RpcError({
      code: "FAILED_PRECONDITION",
      reason: "SANDBOX_UNAVAILABLE",
      message: "Not here.",
    });
    expect(await refusalOf(execute("t.dear"))).toMatchObject({
      reason: "SANDBOX_UNAVAILABLE",
      metadata: { stage: "run" },
    });
    await settled(world, { s1: "0/0", calls: "0/0" });
  });
});

describe("a journal that fails", () => {
  test("when the call would be admitted: it does not run, and nothing is held", async () => {
    const { world, agent, execute } = await open();
    world.breaks = (stream) => stream.startsWith("session.");
    const request = { session: "s1", tool: "t.dear" };
    const error = await refusalOf(agent.execute(request, { deadlineMs: Date.now() + 1_500 }));
    expect(["UNAVAILABLE", "DEADLINE_EXCEEDED"]).toContain(error.code);
    expect(error).toMatchObject({ reason: "JOURNAL_UNAVAILABLE", metadata: { stage: "permit" } });
    world.breaks = () => false;
    await settled(world, { s1: "0/0", calls: "0/0" });
    expect(world.sandbox.ran).toEqual([]);
    expect(stateOf(await execute("t.dear"))).toBe("SUCCEEDED");
  });

  test("when the end would be recorded: the caller is told not to send it again, and the end is recorded later", async () => {
    const { world, agent, execute } = await open();
    const answer = refusalOf(execute("t.held", {}, { idempotencyKey: "k" }));
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    const { callId } = world.sandbox.ran[0] ?? { callId: "" };
    const ref = { session: "s1", callId };
    const repeated = execute("t.held", {}, { idempotencyKey: "k" });
    world.breaks = (stream) => stream.startsWith("session.");
    world.sandbox.letGo();
    const error = await answer;
    expect(error).toMatchObject({ code: "UNAVAILABLE", reason: "JOURNAL_UNAVAILABLE", metadata: { stage: "settle" } });
    expect(error.message).toContain("Do not send it again; ask for it with Get.");
    world.breaks = () => false;
    await expect.poll(async () => stateOf((await agent.get({ ref })).call), SOON).toBe("SUCCEEDED");
    expect(stateOf(await repeated)).toBe("SUCCEEDED"); // one who waited for it hears of it too
    await settled(world, { s1: "100/0", calls: "1/0" });
    expect(world.sandbox.ran).toHaveLength(1);
  });
});

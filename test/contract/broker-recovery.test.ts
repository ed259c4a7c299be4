import { describe, expect, test } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { AGENT, open, refusalOf, SOON, settled, stateOf, type World } from "./broker-fixture.ts";

/** Brokers that stop, crash and race on one journal: every call ends once, and money follows what ran. */

const OVER = 60_000; // beyond any deadline of a run

async function started(world: World): Promise<string> {
  await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
  return world.sandbox.ran.at(-1)?.callId ?? "";
}

/** Another broker on the same journal, and how the call stands there. */
async function another(world: World) {
  const replica = await world.startBroker();
  const agent = replica.as(AGENT);
  const state = async (callId: string) => stateOf((await agent.get({ ref: { session: "s1", callId } })).call);
  return { replica, agent, state };
}

describe("a call that waits for people", () => {
  test.each(["stops", "crashes"])("when its broker %s, and they answer while none is there", async (how) => {
    const { world, replica, execute } = await open();
    const pending = await execute("t.ask");
    if (how === "stops") await replica[Symbol.asyncDispose]();
    else replica.crash();
    await world.approve(pending);
    const { state } = await another(world);
    await expect.poll(() => state(pending.approvalId), SOON).toBe("SUCCEEDED");
    const third = await another(world); // reads the same answers again
    expect(await third.state(pending.approvalId)).toBe("SUCCEEDED");
    expect(world.sandbox.runsOf("t.ask")).toBe(1);
    await settled(world, { s1: "100/0", calls: "1/0" });
    expect(await world.records("s1")).toEqual(["parked", "admitted", "ended"]);
  });

  test("when they answer before the broker has heard that they were asked", async () => {
    const { world, execute, get } = await open();
    world.beforeHearing = async (method) => {
      if (method !== "requestApproval") return;
      world.beforeHearing = async () => {};
      const [approval] = (await world.reviewer.listApprovals({})).approvals;
      await world.reviewer.approve({
        approvalId: approval?.approvalId ?? "",
        argumentsHash: approval?.argumentsHash ?? "",
      });
      await expect.poll(() => world.taken, SOON).toBe(1);
    };
    const pending = await execute("t.ask");
    expect(stateOf(pending)).toBe("PENDING_APPROVAL");
    await expect.poll(async () => stateOf(await get(pending.approvalId)), SOON).toBe("SUCCEEDED");
  });

  test("when its broker crashed before it asked them: another asks", async () => {
    const { world, replica, execute } = await open();
    world.beforeHearing = async (method) => {
      if (method === "reserve") world.down.add("approvals");
    };
    // The question does not get out, and neither does what the broker makes of that.
    world.breaks = (stream, events) => stream === "session.demo.s1" && events.some(({ kind }) => kind === "ended");
    const answer = refusalOf(execute("t.ask"));
    expect(await answer).toMatchObject({ reason: "APPROVALS_UNAVAILABLE" });
    replica.crash();
    world.breaks = () => false;
    world.down.clear();
    expect(await world.records("s1")).toEqual(["parked"]);
    await another(world);
    world.skewMs = 5_000;
    const asked = async () => (await world.reviewer.listApprovals({})).approvals;
    await expect.poll(async () => (await asked()).length, SOON).toBe(1);
    const [approval] = await asked();
    await world.reviewer.approve({
      approvalId: approval?.approvalId ?? "",
      argumentsHash: approval?.argumentsHash ?? "",
    });
    await expect.poll(() => world.records("s1"), SOON).toEqual(["parked", "admitted", "ended"]);
    expect(world.sandbox.runsOf("t.ask")).toBe(1);
  });

  test("when a service is away as they say yes: it waits for the service, also across a stop", async () => {
    const { world, replica, execute } = await open();
    const pending = await execute("t.ask");
    world.down.add("pdp");
    await world.approve(pending);
    await expect.poll(() => world.taken, SOON).toBe(1);
    await replica[Symbol.asyncDispose]();
    const { state } = await another(world);
    expect(await state(pending.approvalId)).toBe("PENDING_APPROVAL");
    world.down.clear();
    await expect.poll(() => state(pending.approvalId), SOON).toBe("SUCCEEDED");
    await settled(world, { s1: "100/0" });
  });
});

describe("a call that people answer while it is withdrawn", () => {
  test("through three brokers at once runs once and is paid, or not at all and is not", async () => {
    const { world, execute } = await open();
    await another(world);
    const { agent } = await another(world);
    for (let i = 0; i < 8; i++) {
      const session = `race-${i}`;
      const pending = await execute("t.ask", { n: i }, { session });
      const ref = { session, callId: pending.approvalId };
      await Promise.allSettled([world.approve(pending), agent.cancel({ ref })]);
      await expect.poll(async () => (await agent.get({ ref })).call?.endTime, SOON).toBeDefined();
      const ran = world.sandbox.ran.filter(({ callId }) => callId === pending.approvalId).length;
      expect(ran).toBeLessThan(2);
      const { call } = await agent.get({ ref });
      expect(call?.charged.length).toBe(ran === 1 ? 2 : 0);
      expect(stateOf(call)).toBe(ran === 1 && call?.result?.end === 1 ? "SUCCEEDED" : "CANCELLED");
      await settled(world, { [session]: ran === 1 ? "100/0" : "0/0" });
      expect((await world.records(session)).filter((kind) => kind === "ended")).toHaveLength(1);
    }
  });
});

describe("a call that ran when its broker crashed", () => {
  test("is not run again: once its time is over, its outcome is not known, and it is paid", async () => {
    const { world, replica, execute } = await open();
    const answer = refusalOf(execute("t.held"));
    const callId = await started(world);
    replica.crash();
    await answer;
    const { state, agent } = await another(world);
    expect(await state(callId)).toBe("RUNNING");
    world.skewMs = OVER;
    await expect.poll(() => state(callId), SOON).toBe("OUTCOME_UNKNOWN");
    expect(world.sandbox.runsOf("t.held")).toBe(1);
    const { call } = await agent.get({ ref: { session: "s1", callId } });
    expect(world.receiptOf(call)).toMatchObject({ state: CallState.OUTCOME_UNKNOWN });
    await settled(world, { s1: "100/0", calls: "1/0" });
  });

  test("is run again once where its tool is idempotent", async () => {
    const { world, replica, execute } = await open();
    const answer = refusalOf(execute("t.safe", { n: 1 }));
    const callId = await started(world);
    replica.crash();
    await answer;
    const { state } = await another(world);
    world.skewMs = OVER;
    await expect.poll(() => world.sandbox.runsOf("t.safe"), SOON).toBe(2);
    world.sandbox.letGo();
    await expect.poll(() => state(callId), SOON).toBe("SUCCEEDED");
    expect(world.sandbox.runsOf("t.safe")).toBe(2);
    await settled(world, { s1: "100/0", calls: "1/0" });
    expect(await world.records("s1")).toEqual(["admitted", "admitted", "ended"]);
  });

  test("is not run a third time", async () => {
    const { world, replica, execute } = await open();
    const answer = refusalOf(execute("t.safe", { n: 1 }));
    const callId = await started(world);
    replica.crash();
    await answer;
    const second = await another(world);
    world.skewMs = OVER;
    await expect.poll(() => world.sandbox.runsOf("t.safe"), SOON).toBe(2);
    second.replica.crash();
    const { state } = await another(world);
    world.skewMs = 2 * OVER;
    await expect.poll(() => state(callId), SOON).toBe("OUTCOME_UNKNOWN");
    expect(world.sandbox.runsOf("t.safe")).toBe(2);
  });

  test("is charged by another broker when it had ended and was not paid yet", async () => {
    const { world, replica, execute } = await open();
    const answer = execute("t.held");
    await started(world);
    world.down.add("ledger");
    world.sandbox.letGo();
    expect(stateOf(await answer)).toBe("SUCCEEDED");
    replica.crash();
    world.down.clear();
    await another(world);
    world.skewMs = 5_000;
    await settled(world, { s1: "100/0", calls: "1/0" });
  });
});

describe("a call that was admitted without its hold, by a broker that then crashed", () => {
  async function admittedAlone(tool: string) {
    const opened = await open();
    const { world, replica, execute } = opened;
    world.down.add("ledger");
    world.breaks = (stream, events) => stream === "session.demo.s1" && events.some(({ kind }) => kind === "ended");
    const error = await refusalOf(execute(tool, { n: 1 }));
    expect(error).toMatchObject({ reason: "LEDGER_UNAVAILABLE", metadata: { stage: "reserve" } });
    replica.crash();
    world.breaks = () => false;
    world.down.clear();
    expect(await world.records("s1")).toEqual(["admitted"]);
    const { state } = await another(world);
    return { ...opened, state: () => state(error.metadata["call_id"] ?? "") };
  }

  test("is not run", async () => {
    const { world, state } = await admittedAlone("t.held");
    world.skewMs = OVER;
    await expect.poll(state, SOON).toBe("OUTCOME_UNKNOWN");
    expect(world.sandbox.ran).toEqual([]);
    await settled(world, { "*": "0/0", calls: "0/0" });
  });

  test("is run where its tool is idempotent, once it is held", async () => {
    const { world, state } = await admittedAlone("t.safe");
    world.skewMs = OVER;
    await expect.poll(() => world.sandbox.runsOf("t.safe"), SOON).toBe(1);
    await settled(world, { s1: "0/100", calls: "0/1" });
    world.sandbox.letGo();
    await expect.poll(state, SOON).toBe("SUCCEEDED");
    await settled(world, { s1: "100/0", calls: "1/0" });
  });
});

test("a call is cancelled through another broker than the one that runs it", async () => {
  const { world, execute } = await open();
  const { agent } = await another(world);
  const answer = execute("t.held");
  const callId = await started(world);
  await agent.cancel({ ref: { session: "s1", callId }, reason: "enough" });
  expect(stateOf(await answer)).toBe("CANCELLED");
});

test("a broker that stops lets short calls come to their end", async () => {
  const { world, replica, execute } = await open();
  const answer = execute("t.held");
  await started(world);
  const stopped = replica[Symbol.asyncDispose]();
  world.sandbox.letGo();
  expect(stateOf(await answer)).toBe("SUCCEEDED");
  await stopped;
  expect(await world.records("s1")).toEqual(["admitted", "ended"]);
});

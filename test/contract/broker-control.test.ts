import { describe, expect, test } from "vitest";
import { type Call, CallState } from "../../proto/interlock/v1/broker_pb.ts";
import {
  AGENT,
  FOREIGN_AGENT,
  OPERATOR,
  OTHER_AGENT,
  open,
  refusalOf,
  SOON,
  settled,
  stateOf,
} from "./broker-fixture.ts";

/** Who may look at calls and stop them, and what they see. */

describe("a call that is cancelled while it runs", () => {
  test.each([
    ["its agent", AGENT, "The agent cancelled the call: enough"],
    ["an operator", OPERATOR, "olga cancelled the call: enough"],
  ])("by %s", async (_, caller) => {
    const { world, replica, execute } = await open();
    const answer = execute("t.held");
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    const callId = world.sandbox.ran[0]?.callId ?? "";
    await replica.as(caller).cancel({ ref: { session: "s1", callId }, reason: "enough" });
    expect(await answer).toMatchObject({ state: CallState.CANCELLED });
    expect(world.sandbox.holding).toBe(0);
    await settled(world, { s1: "100/0", calls: "1/0" });
    // What has ended stays as it ended.
    const { call } = await replica.as(caller).cancel({ ref: { session: "s1", callId } });
    expect(call?.state).toBe(CallState.CANCELLED);
  });

  test("by a caller that goes away", async () => {
    const { world, agent, get } = await open();
    const gone = new AbortController();
    const answer = refusalOf(agent.execute({ session: "s1", tool: "t.held" }, { signal: gone.signal }));
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    gone.abort();
    expect(await answer).toMatchObject({ code: "CANCELLED" });
    await expect
      .poll(async () => (await get(world.sandbox.ran[0]?.callId ?? "")).state, SOON)
      .toBe(CallState.CANCELLED);
    await settled(world, { s1: "100/0" });
  });
});

describe("a kill switch", () => {
  test("stops new calls and those that run, and lets calls through again when it is lifted", async () => {
    const { world, replica, execute } = await open();
    const operator = replica.as(OPERATOR);
    const running = execute("t.held");
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    const { active } = await operator.setKillSwitch({ scope: "agent:demo-agent", on: true, reason: "An incident." });
    expect(active).toMatchObject([{ scope: "agent:demo-agent", reason: "An incident.", author: "olga" }]);
    expect(await running).toMatchObject({ state: CallState.CANCELLED });
    const error = await refusalOf(execute("t.echo"));
    expect(error).toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "KILL_SWITCH",
      metadata: { stage: "guard", scope: "agent:demo-agent" },
    });
    expect(error.message).toContain("An incident.");
    expect((await operator.setKillSwitch({ scope: "agent:demo-agent", on: false })).active).toEqual([]);
    expect((await execute("t.echo")).state).toBe(CallState.SUCCEEDED);
    await settled(world, { s1: "100/0" });
  });

  test("is known to every broker", async () => {
    const { world, replica } = await open();
    const other = await world.startBroker();
    await replica.as(OPERATOR).setKillSwitch({ scope: "everything", on: true, reason: "An incident." });
    const tried = () => refusalOf(other.as(AGENT).execute({ session: "s9", tool: "t.never" }));
    await expect.poll(async () => (await tried()).reason, SOON).toBe("KILL_SWITCH");
    expect((await other.as(OPERATOR).listKillSwitches({})).active).toMatchObject([{ scope: "everything" }]);
  });

  test.each([
    ["", "FIELD_MISSING", "scope"],
    ["tenant:other", "FIELD_INVALID", "scope"],
    ["agent:", "FIELD_INVALID", "scope"],
    ["agent:a.b", "FIELD_INVALID", "scope"],
    ["tool:T", "FIELD_INVALID", "scope"],
    ["demo/tenant", "FIELD_INVALID", "scope"],
    ["toString:x", "FIELD_INVALID", "scope"],
  ])("of scope %j is refused", async (scope, reason, field) => {
    const { replica } = await open();
    const error = await refusalOf(replica.as(OPERATOR).setKillSwitch({ scope, on: true, reason: "An incident." }));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT", reason, field });
  });

  test("needs a reason, and an operator", async () => {
    const { replica } = await open();
    const on = { scope: "tenant:demo", on: true };
    expect(await refusalOf(replica.as(OPERATOR).setKillSwitch({ ...on, reason: " " }))).toMatchObject({
      field: "reason",
    });
    for (const caller of [AGENT, { ...OPERATOR, roles: ["reviewer"] } as typeof OPERATOR]) {
      const error = await refusalOf(replica.as(caller).setKillSwitch({ ...on, reason: "An incident." }));
      expect(error).toMatchObject({ code: "PERMISSION_DENIED", reason: "OPERATOR_ONLY" });
    }
  });
});

describe("who may see a call", () => {
  test("its agent and the tenant's operators; everybody else learns nothing, not even that it is there", async () => {
    const { world, replica, execute } = await open();
    const { ref } = await execute("t.echo");
    const ask = { ref: { session: "s1", callId: ref?.callId ?? "" } };
    expect((await replica.as(OPERATOR).get(ask)).call?.state).toBe(CallState.SUCCEEDED);
    const missing = await refusalOf(replica.as(AGENT).get({ ref: { ...ask.ref, callId: "missing" } }));
    expect(missing).toMatchObject({ code: "NOT_FOUND", reason: "CALL_NOT_FOUND" });
    for (const caller of [OTHER_AGENT, FOREIGN_AGENT, { ...OPERATOR, tenant: "other" } as typeof OPERATOR]) {
      const stranger = replica.as(caller);
      const watching = stranger.watch(ask)[Symbol.asyncIterator]();
      for (const answer of [stranger.get(ask), stranger.cancel(ask), watching.next()]) {
        const { code, reason, message, field } = await refusalOf(answer);
        expect({ code, reason, message, field }).toEqual({
          ...{ code: missing.code, reason: missing.reason, message: missing.message, field: missing.field },
        });
      }
    }
    expect(await world.records("s1")).toEqual(["admitted", "ended"]);
  });

  test.each([
    ["no session", { session: "", callId: "a" }, "FIELD_MISSING", "ref.session"],
    ["no call", { session: "s1", callId: "" }, "FIELD_MISSING", "ref.call_id"],
    ["a session of another shape", { session: "a.b", callId: "a" }, "CALL_NOT_FOUND", "ref.call_id"],
  ])("%s is refused", async (_, ref, reason, field) => {
    const { agent } = await open();
    expect(await refusalOf(agent.get({ ref }))).toMatchObject({ reason, field });
  });
});

describe("a call that is watched", () => {
  async function collect(
    watch: AsyncIterable<{ readonly kind: { readonly case: string | undefined; readonly value?: unknown } }>,
  ) {
    const seen: string[] = [];
    for await (const { kind } of watch) {
      if (kind.case === "call") seen.push(`call ${stateOf(kind.value as Call)}`);
      else if (kind.case === "event") {
        const { kind: inner } = kind.value as { kind: { case: string; value: { stage?: string; text?: string } } };
        seen.push(`${inner.case} ${inner.value.stage ?? inner.value.text}`);
      }
    }
    return seen;
  }

  test("while it runs: how it stands, what has happened, what happens, and how it ended", async () => {
    const { world, agent, execute } = await open();
    const answer = execute("t.held");
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    const watching = collect(agent.watch({ ref: { session: "s1", callId: world.sandbox.ran[0]?.callId ?? "" } }));
    world.sandbox.letGo();
    await answer;
    const [first, ...events] = await watching;
    expect([first, events.pop()]).toEqual(["call RUNNING", "call SUCCEEDED"]);
    expect(events.slice(0, 6)).toEqual([
      ...["stage guard", "stage decide", "stage reserve", "stage permit", "stage run"],
      "output started [masked]",
    ]);
    expect(events.slice(6)).toEqual(["stage filter", "stage settle"]);
  });

  test("once it has ended: how it ended", async () => {
    const { agent, execute } = await open();
    const { ref } = await execute("t.echo");
    expect(await collect(agent.watch({ ref: { session: "s1", callId: ref?.callId ?? "" } }))).toEqual([
      "call SUCCEEDED",
    ]);
  });

  test("while people are asked, and on another broker than the one that runs it", async () => {
    const { world, execute } = await open();
    const pending = await execute("t.ask");
    const other = await world.startBroker();
    const watches = [AGENT, OPERATOR].map((caller) =>
      collect(other.as(caller).watch({ ref: { session: "s1", callId: pending.approvalId } })),
    );
    await world.approve(pending);
    for (const seen of await Promise.all(watches)) {
      expect([seen[0], seen.at(-1)]).toEqual(["call PENDING_APPROVAL", "call SUCCEEDED"]);
    }
    expect(world.sandbox.runsOf("t.ask")).toBe(1);
  });

  test("by one who goes away is left alone", async () => {
    const { world, agent, execute } = await open();
    const answer = execute("t.held");
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    const gone = new AbortController();
    const watching = collect(
      agent.watch({ ref: { session: "s1", callId: world.sandbox.ran[0]?.callId ?? "" } }, { signal: gone.signal }),
    );
    gone.abort();
    expect(await refusalOf(watching)).toMatchObject({ code: "CANCELLED" });
    world.sandbox.letGo();
    expect((await answer).state).toBe(CallState.SUCCEEDED);
  });
});

test("an agent is shown the tools it could be allowed, an operator all of them", async () => {
  const { replica, agent } = await open();
  const { tools } = await agent.listTools({});
  const names = tools.map(({ facts, needsApproval }) => `${facts?.name}${needsApproval ? "?" : ""}`);
  expect(names).toEqual([
    "t.ask?",
    "t.asktouch?",
    "t.dear",
    "t.echo",
    "t.held",
    "t.safe",
    "t.send",
    "t.touch",
    "t.twin",
  ]);
  expect(JSON.parse(tools[3]?.argumentsSchemaJson ?? "")).toMatchObject({ type: "object" });
  expect((await replica.as(OPERATOR).listTools({})).tools).toHaveLength(10);
  expect((await replica.as(FOREIGN_AGENT).listTools({})).tools).toEqual([]);
});

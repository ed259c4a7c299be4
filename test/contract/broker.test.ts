import { describe, expect, test } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { DecisionKind } from "../../proto/interlock/v1/types_pb.ts";
import { fromStatus } from "../../services/shared/rpc/status.ts";
import {
  called,
  FOREIGN_AGENT,
  OPERATOR,
  OTHER_AGENT,
  open,
  REPEAT_LIMIT,
  refusalOf,
  SOON,
  settled,
} from "./broker-fixture.ts";
import { SECRET } from "./broker-sandbox.ts";

/** The broker as agents meet it, with every service it asks. */

describe("a call that runs", () => {
  test("is answered with its result, a receipt that verifies, and what it cost", async () => {
    const { world, execute, get } = await open();
    const call = await execute("t.dear", { n: 1 });
    expect(call).toMatchObject({ state: CallState.SUCCEEDED, tool: "t.dear", approvalId: "" });
    expect(call.result).toMatchObject({ resultJson: '{"n":1}', exitCode: 0 });
    expect(call.charged.map(({ unit, value }) => `${unit} ${value}`)).toEqual(["calls 1", "usd_micros 400"]);
    expect(world.receiptOf(call)).toMatchObject({
      ref: call.ref,
      principal: { tenant: "demo", agent: "demo-agent", session: "s1", user: "" },
      state: CallState.SUCCEEDED,
      decision: DecisionKind.ALLOW,
      policyRevision: call.decision?.revision,
      toolDigest: call.toolDigest,
      argumentsHash: call.argumentsHash,
      enforcement: { kind: "builtin" },
    });
    await settled(world, { s1: "400/0", calls: "1/0" });
    expect(await get(called(call).ref?.callId ?? "")).toEqual(call);
    expect(await world.records("s1")).toEqual(["admitted", "ended"]);
  });

  test("shows no secret, neither in its answer nor in its record", async () => {
    const { world, execute } = await open();
    const call = await execute("t.echo", { text: `the key is ${SECRET}` });
    expect(call.result?.resultJson).toBe('{"text":"the key is [masked]"}');
    for await (const { body } of world.journal.read("session.demo.s1", 1)) {
      expect(Buffer.from(body).toString()).not.toContain(SECRET);
    }
  });

  test("leaves its labels on the session, for the next decision", async () => {
    const { execute } = await open();
    expect((await execute("t.send", { n: 1 })).state).toBe(CallState.SUCCEEDED);
    await execute("t.touch");
    expect(await refusalOf(execute("t.send", { n: 2 }))).toMatchObject({ reason: "POLICY_DENIED" });
    expect((await execute("t.send", { n: 3 }, { session: "s2" })).state).toBe(CallState.SUCCEEDED);
  });

  test("of which many are under way at once, each once and each with an answer of its own", async () => {
    const { world, execute } = await open();
    const calls = await Promise.all(Array.from({ length: 100 }, (_, n) => execute("t.echo", { n })));
    expect(calls.map(({ result }) => result?.resultJson)).toEqual(calls.map((_, n) => `{"n":${n}}`));
    expect(world.sandbox.runsOf("t.echo")).toBe(100);
    await settled(world, { calls: "100/0" });
  });
});

describe("an idempotency key", () => {
  test("sent again with the same call is answered with the first one's outcome", async () => {
    const { world, execute } = await open();
    const first = await execute("t.dear", { n: 1 }, { idempotencyKey: "k" });
    expect(await execute("t.dear", { n: 1 }, { idempotencyKey: "k" })).toEqual(first);
    expect(world.sandbox.ran).toHaveLength(1);
    await settled(world, { s1: "400/0", calls: "1/0" });
  });

  test("sent ten times at once runs one call", async () => {
    const { world, execute } = await open();
    const calls = await Promise.all(
      Array.from({ length: 10 }, () => execute("t.ask", { n: 1 }, { idempotencyKey: "k" })),
    );
    expect(new Set(calls.map(({ ref }) => ref?.callId)).size).toBe(1);
    expect(new Set(calls.map(({ state }) => state))).toEqual(new Set([CallState.PENDING_APPROVAL]));
    await settled(world, { s1: "0/100", calls: "0/1" });
    const running = Promise.all(
      Array.from({ length: 10 }, () => execute("t.held", { n: 1 }, { idempotencyKey: "run" })),
    );
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    world.sandbox.letGo();
    const ran = await running;
    expect(new Set(ran.map(({ ref }) => ref?.callId)).size).toBe(1);
    expect(world.sandbox.runsOf("t.held")).toBe(1);
    await settled(world, { s1: "100/100", calls: "1/1" });
  });

  test.each([
    ["other arguments", "t.echo", { n: 2 }],
    ["another tool", "t.twin", { n: 1 }],
  ])("sent again with %s is refused", async (_, tool, args) => {
    const { world, execute } = await open();
    const first = await execute("t.echo", { n: 1 }, { idempotencyKey: "k" });
    expect(await refusalOf(execute(tool, args, { idempotencyKey: "k" }))).toMatchObject({
      ...{ code: "ALREADY_EXISTS", reason: "IDEMPOTENCY_KEY_REUSED", field: "idempotency_key" },
      metadata: { stage: "guard", first_call_id: first.ref?.callId, session: "s1" },
    });
    expect(world.sandbox.ran).toHaveLength(1);
  });

  test("of a call that was refused is free again", async () => {
    const { world, execute } = await open();
    world.down.add("pdp");
    await refusalOf(execute("t.echo", {}, { idempotencyKey: "k" }));
    world.down.delete("pdp");
    expect((await execute("t.echo", {}, { idempotencyKey: "k" })).state).toBe(CallState.SUCCEEDED);
  });

  test("belongs to its session", async () => {
    const { world, execute } = await open();
    await execute("t.echo", { n: 1 }, { idempotencyKey: "k" });
    await execute("t.echo", { n: 2 }, { idempotencyKey: "k", session: "s2" });
    expect(world.sandbox.ran).toHaveLength(2);
  });
});

describe("what is refused", () => {
  test("a loop, at its limit, until something else is done", async () => {
    const { world, execute } = await open();
    for (let i = 0; i < REPEAT_LIMIT; i++) await execute("t.echo", { n: 1 });
    for (let i = 0; i < 2; i++) {
      expect(await refusalOf(execute("t.echo", { n: 1 }))).toMatchObject({
        ...{ code: "FAILED_PRECONDITION", reason: "LOOP_DETECTED" },
        metadata: { stage: "guard", limit: String(REPEAT_LIMIT) },
      });
    }
    expect(world.sandbox.ran).toHaveLength(REPEAT_LIMIT);
    await execute("t.echo", { n: 2 });
    await execute("t.echo", { n: 1 });
  });

  test("a loop of calls sent at once", async () => {
    const { world, execute } = await open();
    const answers = await Promise.allSettled(Array.from({ length: 10 }, () => execute("t.echo", { n: 1 })));
    expect(answers.filter(({ status }) => status === "fulfilled")).toHaveLength(REPEAT_LIMIT);
    expect(world.sandbox.ran).toHaveLength(REPEAT_LIMIT);
    await settled(world, { calls: `${REPEAT_LIMIT}/0` });
  });

  test("policy's no, with its reason and rule", async () => {
    const { world, execute, get } = await open();
    const error = await refusalOf(execute("t.never"));
    expect(error).toMatchObject({ code: "PERMISSION_DENIED", reason: "POLICY_DENIED", message: "Nobody may." });
    expect(error.metadata).toMatchObject({
      stage: "decide",
      session: "s1",
      rules: expect.stringContaining("policy.csv:"),
    });
    const call = await get(error.metadata["call_id"] ?? "");
    expect(call.state).toBe(CallState.REFUSED);
    expect(world.receiptOf(call)).toMatchObject({ state: CallState.REFUSED, decision: DecisionKind.DENY, charged: [] });
    expect(await world.records("s1")).toEqual(["ended"]);
    expect(world.sandbox.ran).toEqual([]);
  });

  test("a call that no budget has room for", async () => {
    const { world, execute } = await open();
    await execute("t.dear", { n: 1 });
    await execute("t.dear", { n: 2 });
    const error = await refusalOf(execute("t.dear", { n: 3 }));
    expect(error).toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "BUDGET_EXHAUSTED",
      metadata: { stage: "reserve" },
    });
    expect(world.sandbox.ran).toHaveLength(2);
    await settled(world, { s1: "800/0", calls: "2/0" });
    await execute("t.dear", { n: 3 }, { session: "s2" });
  });

  test("a call that no budget has room for is refused anew each time: it is no loop, and keeps no key", async () => {
    const { world, execute } = await open();
    await execute("t.dear", { n: 1 });
    await execute("t.dear", { n: 2 });
    const ids = new Set<string | undefined>();
    for (let i = 0; i < REPEAT_LIMIT + 2; i++) {
      const error = await refusalOf(execute("t.dear", { n: 3 }, { idempotencyKey: "k" }));
      expect(error.reason).toBe("BUDGET_EXHAUSTED");
      ids.add(error.metadata["call_id"]);
    }
    expect(ids.size).toBe(REPEAT_LIMIT + 2);
    await settled(world, { s1: "800/0", calls: "2/0" });
  });

  test.each([
    ["an unknown tool", "t.gone", {}, "TOOL_UNKNOWN", "tool"],
    ["arguments that do not fit", "t.echo", { n: "1" }, "ARGUMENTS_INVALID", "arguments_json.n"],
  ])("%s, on the record too", async (_, tool, args, reason, field) => {
    const { world, execute, get } = await open();
    const error = await refusalOf(execute(tool, args));
    expect(error).toMatchObject({ reason, field, metadata: { stage: "resolve" } });
    await expect.poll(() => world.records("s1"), SOON).toEqual(["ended"]);
    const { refusal, state } = await get(error.metadata["call_id"] ?? "");
    expect(state).toBe(CallState.REFUSED);
    if (refusal === undefined) throw new Error("it does not say why");
    expect(fromStatus(refusal)).toMatchObject({ reason, field });
  });
});

describe("who is refused", () => {
  test("an agent in a session of another", async () => {
    const { world, replica, execute } = await open();
    await execute("t.echo");
    const error = await refusalOf(replica.as(OTHER_AGENT).execute({ session: "s1", tool: "t.echo" }));
    expect(error).toMatchObject({ code: "FAILED_PRECONDITION", reason: "SESSION_FOREIGN", field: "session" });
    expect(await world.records("s1")).toEqual(["admitted", "ended"]);
    await expect(replica.as(FOREIGN_AGENT).execute({ session: "s1", tool: "t.echo" })).rejects.toMatchObject({
      reason: "POLICY_DENIED", // the other tenant's session of that name is another one
    });
  });

  test.each([
    ["a person", OPERATOR],
    ["a service", { kind: "service", name: "edge" } as const],
  ])("%s", async (_, caller) => {
    const { replica } = await open();
    const error = await refusalOf(replica.as(caller).execute({ session: "s1", tool: "t.echo" }));
    expect(error).toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "AGENTS_ONLY",
      metadata: { stage: "authenticate" },
    });
  });
});

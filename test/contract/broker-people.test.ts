import { describe, expect, test } from "vitest";
import { ApprovalState } from "../../proto/interlock/v1/approvals_pb.ts";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { DecisionKind } from "../../proto/interlock/v1/types_pb.ts";
import { fromStatus } from "../../services/shared/rpc/status.ts";
import { OPERATOR, open, refusalOf, SOON, settled, stateOf } from "./broker-fixture.ts";
import { SECRET } from "./broker-sandbox.ts";

/** Calls that people are asked about, through the broker and the approval service. */

describe("a call that people are asked about", () => {
  const HOUR = { seconds: 3600n, nanos: 0 };

  test("waits, holds its money, and runs once when they say yes", async () => {
    const { world, execute, get } = await open();
    const pending = await execute("t.ask", { n: 1 });
    expect(pending).toMatchObject({
      state: CallState.PENDING_APPROVAL,
      approvalId: pending.ref?.callId,
    });
    expect(pending.decision).toMatchObject({
      kind: DecisionKind.REQUIRE_APPROVAL,
      reasons: ["A lead says yes first."],
    });
    await settled(world, { s1: "0/100", calls: "0/1" });
    expect(world.sandbox.ran).toEqual([]);
    await world.approve(pending);
    await expect.poll(async () => (await get(pending.approvalId)).state, SOON).toBe(CallState.SUCCEEDED);
    const call = await get(pending.approvalId);
    expect(world.receiptOf(call)).toMatchObject({
      approvalId: pending.approvalId,
      decision: DecisionKind.REQUIRE_APPROVAL,
    });
    expect(world.sandbox.ran).toHaveLength(1);
    await settled(world, { s1: "100/0", calls: "1/0" });
    expect(await world.records("s1")).toEqual(["parked", "admitted", "ended"]);
  });

  test("answers with its end a caller that waits", async () => {
    const { world, execute } = await open();
    const answer = execute("t.ask", { n: 1 }, { wait: { $typeName: "google.protobuf.Duration", ...HOUR } });
    const pending = async () => (await world.reviewer.listApprovals({})).approvals;
    await expect.poll(async () => (await pending()).length, SOON).toBe(1);
    const [approval] = await pending();
    await world.reviewer.approve({
      approvalId: approval?.approvalId ?? "",
      argumentsHash: approval?.argumentsHash ?? "",
    });
    expect(await answer).toMatchObject({ state: CallState.SUCCEEDED });
  });

  test("answers with what it stands at a caller whose wait is over, however short", async () => {
    const { execute } = await open();
    for (const nanos of [1, 1_500_001]) {
      const wait = { $typeName: "google.protobuf.Duration", seconds: 0n, nanos } as const;
      expect((await execute("t.ask", { n: nanos }, { wait })).state).toBe(CallState.PENDING_APPROVAL);
    }
  });

  test("shows people its arguments without secrets", async () => {
    const { world, execute } = await open();
    await execute("t.ask", { text: SECRET });
    const { approvals } = await world.reviewer.listApprovals({});
    expect(approvals[0]).toMatchObject({ argumentsJson: '{"text":"[masked]"}', tool: "t.ask", approverGroup: "leads" });
  });
});

describe("a call that people are asked about and do not allow", () => {
  test("is refused when they say no, with what they said", async () => {
    const { world, execute } = await open();
    const pending = await execute("t.ask", { n: 1 }, { idempotencyKey: "k" });
    await world.reviewer.reject({ approvalId: pending.approvalId, comment: "too dear" });
    await settled(world, { s1: "0/0", calls: "0/0" });
    const error = await refusalOf(execute("t.ask", { n: 1 }, { idempotencyKey: "k" }));
    expect(error).toMatchObject({
      code: "PERMISSION_DENIED",
      reason: "APPROVAL_REJECTED",
      message: "lena said no: too dear",
    });
    expect(error.metadata).toMatchObject({ stage: "approve", call_id: pending.approvalId });
    expect(world.sandbox.ran).toEqual([]);
  });

  test("is refused when nobody answers in time", async () => {
    const { world, execute, get } = await open();
    const pending = await execute("t.ask", { n: 1 });
    world.skewMs = 2 * 3_600_000;
    await expect.poll(async () => (await get(pending.approvalId)).state, SOON).toBe(CallState.REFUSED);
    const { refusal } = await get(pending.approvalId);
    expect(refusal && fromStatus(refusal)).toMatchObject({
      reason: "APPROVAL_EXPIRED",
      metadata: { stage: "approve" },
    });
    await settled(world, { s1: "0/0" });
  });

  test("is withdrawn by its agent, and then nobody can say yes to it", async () => {
    const { world, execute, agent } = await open();
    const pending = await execute("t.ask", { n: 1 });
    const { call } = await agent.cancel({
      ref: { session: "s1", callId: pending.approvalId },
      reason: "changed my mind",
    });
    expect(call?.state).toBe(CallState.CANCELLED);
    await settled(world, { s1: "0/0", calls: "0/0" });
    const approvalId = pending.approvalId;
    await expect
      .poll(async () => (await world.reviewer.getApproval({ approvalId })).approval?.state, SOON)
      .toBe(ApprovalState.CANCELLED);
    expect(await refusalOf(world.approve(pending))).toMatchObject({ reason: "APPROVAL_CANCELLED" });
    expect(world.sandbox.ran).toEqual([]);
    expect(await world.records("s1")).toEqual(["parked", "ended"]);
  });

  test("and never runs leaves no labels on its session", async () => {
    const { execute, agent } = await open();
    const { approvalId } = await execute("t.asktouch");
    await agent.cancel({ ref: { session: "s1", callId: approvalId } });
    expect(stateOf(await execute("t.send"))).toBe("SUCCEEDED");
  });
});

describe("a call that people allow", () => {
  test.each([
    ["other people", "approver_group=leads", "approver_group=bosses", "POLICY_MISMATCH"],
    ["more people", "quorum=1", "quorum=2", "POLICY_MISMATCH"],
    ["nobody: it is forbidden", "t.never, deny", "t.ask, deny", "POLICY_DENIED"],
  ])("does not run when policy now asks %s", async (_, from, to, reason) => {
    const { world, execute, get } = await open();
    const pending = await execute("t.ask", { n: 1 });
    await world.changePolicy(from, to);
    await world.approve(pending);
    await expect.poll(async () => stateOf(await get(pending.approvalId)), SOON).toBe("REFUSED");
    const { refusal } = await get(pending.approvalId);
    expect(refusal && fromStatus(refusal)).toMatchObject({ reason, metadata: { stage: "decide" } });
    await settled(world, { s1: "0/0" });
    expect(world.sandbox.ran).toEqual([]);
  });

  test("does not run once a kill switch is on, whatever they say", async () => {
    const { world, replica, execute, get } = await open();
    const pending = await execute("t.ask", { n: 1 });
    await replica.as(OPERATOR).setKillSwitch({ scope: "tool:t.ask", on: true, reason: "An incident." });
    await world.approve(pending);
    await expect.poll(async () => (await get(pending.approvalId)).state, SOON).toBe(CallState.REFUSED);
    const { refusal } = await get(pending.approvalId);
    expect(refusal && fromStatus(refusal)).toMatchObject({ reason: "KILL_SWITCH", metadata: { stage: "guard" } });
    await settled(world, { s1: "0/0" });
    expect(world.sandbox.ran).toEqual([]);
  });

  test("is decided again on what the session has touched since", async () => {
    const { world, execute, get } = await open();
    const pending = await execute("t.ask", { n: 1 });
    await execute("t.touch");
    await world.approve(pending);
    await expect.poll(async () => (await get(pending.approvalId)).state, SOON).toBe(CallState.SUCCEEDED);
  });
});

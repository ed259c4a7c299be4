import { describe, expect, test } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { DecisionKind } from "../../proto/interlock/v1/types_pb.ts";
import { LOOPS, open, refusalOf } from "./broker-fixture.ts";

/** The loop rules as an agent meets them: told in the answer, asked about, refused, and in the end sent home. */

describe("a session that goes in circles", () => {
  test("is told with the second turn, and refused the third", async () => {
    const { world, execute, get } = await open();
    const turn = async () => [await execute("t.echo", { n: 1 }), await execute("t.twin", { n: 2 })];
    const [first] = await turn();
    const [, second] = await turn();
    expect(first?.warnings).toEqual([]);
    expect(second?.state).toBe(CallState.SUCCEEDED);
    expect(second?.warnings).toEqual([expect.stringContaining("have gone round 2 times")]);
    expect(await get(second?.ref?.callId ?? "")).toEqual(second);
    const third = await refusalOf(turn());
    expect(third).toMatchObject({ reason: "LOOP_DETECTED", metadata: { stage: "guard", rule: "cycle", count: "3" } });
    // Refused calls count as asked for: the other call of the cycle does not begin anew.
    expect((await refusalOf(execute("t.echo", { n: 1 }))).reason).toBe("LOOP_DETECTED");
    expect((await refusalOf(execute("t.twin", { n: 2 }))).reason).toBe("LOOP_DETECTED");
    expect(world.sandbox.ran).toHaveLength(5);
    expect((await execute("t.echo", { n: 3 })).state).toBe(CallState.SUCCEEDED);
  });

  test("knows its answers: the third call that would be answered the same is refused", async () => {
    const { world, execute } = await open({ loops: LOOPS });
    await execute("t.echo", { n: 1 });
    await execute("t.twin", { n: 7 });
    await execute("t.echo", { n: 1 });
    const error = await refusalOf(execute("t.echo", { n: 1 }));
    expect(error).toMatchObject({ reason: "LOOP_DETECTED", metadata: { rule: "no_progress" } });
    expect(error.message).toContain("use the answer you have");
    expect(world.sandbox.ran).toHaveLength(3);
  });

  test("waits for people where the rules say so, and runs once they said yes", async () => {
    const loops = { ...LOOPS, no_progress: { ask: 3 }, cycle: {} };
    const { world, execute, agent } = await open({ loops });
    for (let i = 0; i < 2; i++) await execute("t.echo", { n: 1 });
    const parked = await execute("t.echo", { n: 1 });
    expect(parked).toMatchObject({
      state: CallState.PENDING_APPROVAL,
      decision: { kind: DecisionKind.REQUIRE_APPROVAL },
    });
    expect(parked.decision?.reasons[0]).toContain("answered the same each time");
    await world.approve(parked);
    await expect
      .poll(async () => (await agent.get({ ...(parked.ref && { ref: parked.ref }) })).call?.state, { timeout: 10_000 })
      .toBe(CallState.SUCCEEDED);
    expect(world.sandbox.ran).toHaveLength(3);
  });

  test("has ended after so many refusals, whatever it asks for, on every broker", async () => {
    const { world, execute } = await open({ loops: { ...LOOPS, end_session_after: 2 } });
    for (let i = 0; i < 2; i++) await execute("t.echo", { n: 1 });
    for (let i = 0; i < 2; i++) await refusalOf(execute("t.echo", { n: 1 }));
    const error = await refusalOf(execute("t.twin", { n: 2 }));
    expect(error).toMatchObject({ reason: "SESSION_STOPPED", metadata: { rule: "session" } });
    expect((await execute("t.twin", { n: 2 }, { session: "s2" })).state).toBe(CallState.SUCCEEDED);
    expect(world.sandbox.ran).toHaveLength(3);
  });
});

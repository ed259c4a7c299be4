import { describe, expect, test } from "vitest";
import { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { localClient } from "../../services/shared/rpc/local.ts";
import { service } from "../../services/shared/rpc/service.ts";
import { AGENT, called, LEAD, newWorld, SOON, settled, stateOf } from "./broker-fixture.ts";

/** One click, several brokers and approval services: one run, whoever falls over in between. */

async function openTwice() {
  const world = await newWorld();
  const [one, two] = [await world.startBroker(), await world.startBroker()];
  const second = await world.startApprovals();
  const other = localClient<typeof ApprovalsService>(service(ApprovalsService, second.handlers), { caller: LEAD });
  const park = async (n: number) =>
    called((await one.as(AGENT).execute({ session: "s1", tool: "t.ask", argumentsJson: JSON.stringify({ n }) })).call);
  const get = async (callId: string) => called((await two.as(AGENT).get({ ref: { session: "s1", callId } })).call);
  return { world, one, two, second, other, park, get };
}

describe("two brokers and two approval services", () => {
  test("race on one click: one run, one vote, each time", async () => {
    const { world, second, other, park, get } = await openTwice();
    await using _ = second;
    for (let n = 1; n <= 10; n++) {
      const { approvalId, argumentsHash } = await park(n);
      const click = { approvalId, argumentsHash };
      await Promise.allSettled([world.reviewer.approve(click), other.approve(click), world.reviewer.approve(click)]);
      await expect.poll(async () => stateOf(await get(approvalId)), SOON).toBe("SUCCEEDED");
      expect((await world.reviewer.getApproval({ approvalId })).approval?.votes).toHaveLength(1);
      expect(world.sandbox.ran).toHaveLength(n);
    }
  });

  test("a yes and a no at once: it runs exactly when the yes came first", async () => {
    const { world, second, other, park, get } = await openTwice();
    await using _ = second;
    let ran = 0;
    for (let n = 1; n <= 10; n++) {
      const { approvalId, argumentsHash } = await park(n);
      await Promise.allSettled([world.reviewer.approve({ approvalId, argumentsHash }), other.reject({ approvalId })]);
      await expect
        .poll(async () => (await get(approvalId)).state, SOON)
        .toBeOneOf([CallState.SUCCEEDED, CallState.REFUSED]);
      if ((await get(approvalId)).state === CallState.SUCCEEDED) ran++;
      expect(world.sandbox.ran).toHaveLength(ran);
    }
  });
});

describe("a broker that is gone", () => {
  test.each(["requestApproval", "extend"] as const)(
    "at %s leaves its call to the other, which runs it once",
    async (step) => {
      const { world, one, second, park, get } = await openTwice();
      await using _ = second;
      let crashed = false;
      world.beforeHearing = async (method) => {
        if (method !== step || crashed) return;
        crashed = true;
        one.crash();
      };
      const parked = await park(1).catch(() => undefined);
      const { approvals } = await world.reviewer.listApprovals({});
      const [approval] = approvals;
      const id = parked?.approvalId ?? approval?.approvalId ?? "";
      await world.reviewer.approve({ approvalId: id, argumentsHash: approval?.argumentsHash ?? "" });
      await expect.poll(async () => stateOf(await get(id)), { timeout: 15_000, interval: 20 }).toBe("SUCCEEDED");
      expect(world.sandbox.ran).toHaveLength(1);
      await settled(world, { s1: "100/0" });
    },
  );
});

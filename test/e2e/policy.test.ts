import { readFileSync } from "node:fs";
import { v7 as uuidv7 } from "uuid";
import { describe, expect, it } from "vitest";
import { BrokerService } from "../../proto/interlock/v1/broker_pb.ts";
import { PdpService, StandingState } from "../../proto/interlock/v1/pdp_pb.ts";
import { packBundle } from "../../services/pdp/bundle.ts";
import { openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import { eventually, refusalOf } from "../support/clients.ts";
import { startApart, startEmbedded } from "../support/interlock.ts";

/** A policy changed while Interlock runs: from the operator's push to what an agent is told, in one process and in five. */

const RULES = readFileSync("policies/policy.csv", "utf8");
const FORBIDDING = `${RULES}p, demo, *, math.compute, deny, true, No computing today.\n`;
const bundleOf = (text: string) => packBundle(new Map([["policy.csv", text]]));
const COMPUTE = { tool: "math.compute", argumentsJson: '{"program":"return 1"}' };

describe.each([
  ["in one process", () => startEmbedded({ config: { runner: { containers: "off" } } })],
  [
    "in five, each with its own NATS user",
    () => startApart({ natsUsers: true, config: { runner: { containers: "off" } } }),
  ],
] as const)("%s", (_name, start) => {
  it("a push is watched, binds the next call, names its revision in the receipt, and rolls back", {
    timeout: 120_000,
  }, async () => {
    await using running = await start();
    await using people = openGrpcChannel({ address: running.address, apiKey: running.keys.operator });
    await using agents = openGrpcChannel({ address: running.address, apiKey: running.keys.agent });
    const pdp = people.client(PdpService);
    const agent = agents.client(BrokerService);
    const stop = new AbortController();
    const revisions = pdp.watchRevisions({}, { signal: stop.signal })[Symbol.asyncIterator]();
    const first = (await revisions.next()).value;
    expect(first).toMatchObject({ number: 0, switchedAfterMs: 0 });

    const before = (await agent.execute({ session: "policy-1", ...COMPUTE })).call;
    expect(before?.decision?.revision).toBe(first?.revision);

    const change = { reason: "A test.", changeId: uuidv7() };
    const { standing } = await pdp.pushPolicy({ bundle: await bundleOf(FORBIDDING), ...change });
    expect(standing).toMatchObject({ state: StandingState.ACTIVE, number: 1 });
    expect((await revisions.next()).value).toMatchObject({ number: 1, revision: standing?.revision });
    const refusal = await refusalOf(agent.execute({ session: "policy-2", ...COMPUTE }));
    expect([refusal.reason, refusal.message]).toEqual(["POLICY_DENIED", "No computing today."]);
    expect(refusal.metadata["revision"]).toBe(standing?.revision);

    await pdp.rollbackPolicy({ reason: "Enough.", changeId: uuidv7() });
    expect((await revisions.next()).value).toMatchObject({ number: 0, revision: first?.revision });
    expect((await agent.execute({ session: "policy-3", ...COMPUTE })).call?.decision?.revision).toBe(first?.revision);
    stop.abort();
  });
});

it("a pdp that was killed comes back with the revision that was live", { timeout: 120_000 }, async () => {
  await using running = await startApart({ config: { runner: { containers: "off" } } });
  await using people = openGrpcChannel({ address: running.address, apiKey: running.keys.operator });
  await using agents = openGrpcChannel({ address: running.address, apiKey: running.keys.agent });
  const pdp = people.client(PdpService);
  const { standing } = await pdp.pushPolicy({
    bundle: await bundleOf(FORBIDDING),
    reason: "A test.",
    changeId: uuidv7(),
  });
  await running.kill("pdp");
  await running.start("pdp");
  const revision = await eventually(
    async () => (await pdp.getRevision({})).revision,
    () => true,
  );
  expect(revision).toBe(standing?.revision);
  const refusal = await refusalOf(agents.client(BrokerService).execute({ session: "policy-4", ...COMPUTE }));
  expect(refusal.message).toBe("No computing today.");
});

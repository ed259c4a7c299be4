import { expect, test } from "vitest";
import { HASH, NOW_MS, uuid } from "./fixture.ts";
import { alice, approvalOf, bob, broker, openJournal, startReplica } from "./service-fixture.ts";

/** By the service's own clock: what is asked at a time and answered at another. */
async function startAt(journal: Awaited<ReturnType<typeof openJournal>>) {
  const clock = { ms: NOW_MS };
  const replica = await startReplica(journal, () => clock.ms);
  let asked = 0;
  const ask = async (rule: string) => {
    const approvalId = uuid(++asked);
    await replica.as(broker).requestApproval({ approval: approvalOf({ approvalId, rules: [rule] }) });
    return { approvalId, argumentsHash: HASH, comment: "" };
  };
  return { clock, replica, ask, [Symbol.asyncDispose]: () => replica[Symbol.asyncDispose]() };
}

test("the time to answer, the shares, and who answers, by rule and by reviewer", async () => {
  await using service = await startAt(await openJournal());
  const { clock, replica, ask } = service;
  for (const seconds of [10, 20, 30, 40, 100]) {
    const given = await ask("policy.csv:1");
    clock.ms += seconds * 1_000;
    if (seconds === 100) await replica.as(bob).reject({ approvalId: given.approvalId, comment: "no" });
    else await replica.as(alice).approve(given);
  }
  const withdrawn = await ask("policy.csv:2");
  await replica.as(broker).cancelApproval({ tenant: "demo", approvalId: withdrawn.approvalId, reason: "gone" });
  await ask("policy.csv:3");
  const stats = await replica.as(alice).getStats({});
  expect(stats.pending).toBe(1);
  expect(stats.rules).toMatchObject([
    {
      ...{ rule: "policy.csv:1", approved: 4, rejected: 1, expired: 0, cancelled: 0, candidate: false },
      ...{ answerP50: { seconds: 30n }, answerP90: { seconds: 100n } },
    },
    { rule: "policy.csv:2", approved: 0, rejected: 0, cancelled: 1, candidate: false },
  ]);
  expect(stats.rules[1]?.answerP50).toBeUndefined();
  expect(stats.reviewers).toMatchObject([
    { reviewer: "alice", approved: 4, rejected: 0, hasty: 0, lastHour: 4 },
    { reviewer: "bob", approved: 0, rejected: 1, hasty: 0, lastHour: 1 },
  ]);
  clock.ms += 3_600_000;
  const later = await replica.as(alice).getStats({});
  expect(later.reviewers.map(({ lastHour }) => lastHour)).toEqual([0, 0]);
});

test("a rule is a candidate from twenty yeses without a no; a yes faster than reading is counted", async () => {
  await using service = await startAt(await openJournal());
  const { clock, replica, ask } = service;
  const ruleNow = async () => (await replica.as(alice).getStats({})).rules[0];
  for (let n = 0; n < 20; n++) {
    expect((await ruleNow())?.candidate ?? false).toBe(false);
    const given = await ask("policy.csv:1");
    clock.ms += n < 3 ? 1 : 60_000;
    await replica.as(alice).approve(given);
  }
  expect(await ruleNow()).toMatchObject({ approved: 20, candidate: true });
  expect((await replica.as(alice).getStats({})).reviewers).toMatchObject([
    { reviewer: "alice", approved: 20, hasty: 3 },
  ]);
  const given = await ask("policy.csv:1");
  await replica.as(alice).reject({ approvalId: given.approvalId, comment: "no" });
  expect(await ruleNow()).toMatchObject({ approved: 20, rejected: 1, candidate: false });
});

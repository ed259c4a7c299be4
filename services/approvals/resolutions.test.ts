import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ApprovalState } from "../../proto/interlock/v1/approvals_pb.ts";
import type { Caller } from "../shared/rpc/types.ts";
import { HASH, NOW_MS, TTL_MS, uuid } from "./fixture.ts";
import {
  alice,
  approvalId,
  approvalOf,
  bob,
  broker,
  nextEnds,
  openJournal,
  type Replica,
  refusalOf,
  startReplica,
  yes,
} from "./service-fixture.ts";

const { APPROVED, CANCELLED, EXPIRED, REJECTED } = ApprovalState;

async function ask(replica: Replica, n: number, expiresAtMs = NOW_MS + TTL_MS): Promise<void> {
  const approval = approvalOf({ approvalId: uuid(n), expireTime: timestampFromMs(expiresAtMs) });
  await replica.as(broker).requestApproval({ approval });
}

describe("watching resolutions", () => {
  test("an end says all its watcher needs", async () => {
    await using replica = await startReplica(await openJournal());
    const resolutions = replica.as(broker).watchResolutions({})[Symbol.asyncIterator]();
    const first = resolutions.next(); // before there is anything to see
    await ask(replica, 1);
    await replica.as(alice).approve(yes);
    const { value } = await first;
    const { ref, principal, tool, toolDigest, argumentsHash } = approvalOf();
    expect(value?.approval).toMatchObject({
      ...{ approvalId, state: APPROVED, ref, principal, tool, toolDigest, argumentsHash },
      votes: [{ reviewer: "alice", approve: true }],
    });
    await resolutions.return?.();
  });

  test("every kind of end, in order; from a position on across a restart, then live", async () => {
    const journal = await openJournal();
    let position = "";
    {
      await using replica = await startReplica(journal);
      for (const n of [1, 2, 3, 4]) await ask(replica, n);
      await replica.as(alice).approve(yes);
      await replica.as(broker).cancelApproval({ tenant: "demo", approvalId: uuid(2) });
      const ends = await nextEnds(replica.as(broker), "", 2);
      expect(ends.map(({ id, state }) => [id, state])).toEqual([
        [uuid(1), APPROVED],
        [uuid(2), CANCELLED],
      ]);
      position = ends[1]?.position ?? "";
      await replica.as(bob).reject({ approvalId: uuid(3) });
    }
    await using replica = await startReplica(journal, () => NOW_MS + TTL_MS - 1);
    const rest = nextEnds(replica.as(broker), position, 3);
    await ask(replica, 5);
    await replica.as(bob).approve({ approvalId: uuid(5), argumentsHash: HASH });
    await replica.as(alice).reject({ approvalId: uuid(4) });
    expect((await rest).map(({ id, state }) => [id, state])).toEqual([
      [uuid(3), REJECTED],
      [uuid(5), APPROVED],
      [uuid(4), REJECTED],
    ]);
  });

  test("ends of every tenant come, and nothing but ends", async () => {
    await using replica = await startReplica(await openJournal());
    const principal = { tenant: "other", agent: "a", session: "s", user: "" };
    await ask(replica, 1);
    await replica.as(broker).requestApproval({ approval: approvalOf({ approvalId: uuid(2), principal }) });
    await replica.as(broker).cancelApproval({ tenant: "other", approvalId: uuid(2) });
    await replica.as(alice).approve(yes);
    expect((await nextEnds(replica.as(broker), "", 2)).map(({ id }) => id)).toEqual([uuid(2), uuid(1)]);
  });

  test("a service that stops says so, lest its silence pass for the end", async () => {
    const replica = await startReplica(await openJournal());
    const waiting = nextEnds(replica.as(broker), "", 2);
    await ask(replica, 1);
    await replica.as(alice).approve(yes);
    const stopped = refusalOf(waiting);
    await replica[Symbol.asyncDispose]();
    await replica[Symbol.asyncDispose]();
    expect(await stopped).toMatchObject({ code: "UNAVAILABLE", reason: "SERVICE_STOPPING" });
  });
});

describe("expiry", () => {
  test("silence ends it by itself, the earliest first", async () => {
    await using replica = await startReplica(await openJournal(), Date.now);
    const ends = nextEnds(replica.as(broker), "", 2);
    await ask(replica, 1, Date.now() + TTL_MS);
    await ask(replica, 2, Date.now() + 400);
    await ask(replica, 3, Date.now() + 200);
    expect((await ends).map(({ id, state }) => [id, state])).toEqual([
      [uuid(3), EXPIRED],
      [uuid(2), EXPIRED],
    ]);
    expect((await replica.as(alice).listApprovals({})).approvals.map((one) => one.approvalId)).toEqual([uuid(1)]);
  });

  test("what fell due while nobody served has ended when the service has started", async () => {
    const journal = await openJournal();
    {
      await using replica = await startReplica(journal);
      await ask(replica, 1);
    }
    await using replica = await startReplica(journal, () => NOW_MS + TTL_MS);
    const { approval } = await replica.as(alice).getApproval({ approvalId });
    expect(approval?.state).toBe(EXPIRED);
  });

  test("more than one command ends at once", async () => {
    const journal = await openJournal();
    {
      await using replica = await startReplica(journal);
      await Promise.all(Array.from({ length: 450 }, (_, n) => ask(replica, n)));
    }
    await using replica = await startReplica(journal, () => NOW_MS + TTL_MS);
    expect((await replica.as(alice).listApprovals({ state: EXPIRED })).approvals).toHaveLength(450);
  });

  test("a yes that comes before the timer but after the time is a no", async () => {
    let nowMs = NOW_MS;
    await using replica = await startReplica(await openJournal(), () => nowMs);
    await ask(replica, 1);
    nowMs += TTL_MS;
    const refusal = await refusalOf(replica.as(alice).approve(yes));
    expect(refusal).toMatchObject({ reason: "APPROVAL_EXPIRED", metadata: { state: "EXPIRED" } });
    expect((await replica.as(alice).getApproval({ approvalId })).approval).toMatchObject({ state: EXPIRED, votes: [] });
    expect(await refusalOf(replica.as(alice).approve(yes))).toMatchObject({ reason: "APPROVAL_EXPIRED" });
  });

  test("two replicas that both end it end it once", async () => {
    const journal = await openJournal();
    {
      await using replica = await startReplica(journal);
      for (const n of [1, 2]) await ask(replica, n);
    }
    const late = () => NOW_MS + TTL_MS;
    const [one, two] = await Promise.all([startReplica(journal, late), startReplica(journal, late)]);
    await using _one = one;
    await using _two = two;
    let records = 0;
    for await (const _ of journal.read("approval.demo", 0)) records++;
    expect(records).toBe(4);
  });
});

describe("replicas", () => {
  test("of a yes and a no at the same time exactly one wins, and the other is told", async () => {
    const journal = await openJournal();
    await using one = await startReplica(journal);
    await using two = await startReplica(journal);
    for (let n = 1; n <= 25; n++) {
      await ask(n % 2 ? one : two, n);
      const id = { approvalId: uuid(n) };
      const answers = await Promise.allSettled([
        one.as(alice).approve({ ...id, argumentsHash: HASH }),
        two.as(bob).reject(id),
      ]);
      const lost = answers.filter((answer) => answer.status === "rejected");
      expect(lost).toHaveLength(1);
      const won = answers[0].status === "fulfilled" ? "APPROVAL_CONSUMED" : "APPROVAL_REJECTED";
      expect(lost[0]?.reason).toMatchObject({ reason: won });
      const state = answers[0].status === "fulfilled" ? APPROVED : REJECTED;
      for (const replica of [one, two]) {
        expect((await replica.as(alice).getApproval(id)).approval?.state).toBe(state);
      }
    }
    const ends = await nextEnds(one.as(broker), "", 25);
    expect(new Set(ends.map(({ id }) => id)).size).toBe(25);
  });

  test("one person in two places at once is still one vote", async () => {
    const journal = await openJournal();
    await using one = await startReplica(journal);
    await using two = await startReplica(journal);
    await one.as(broker).requestApproval({ approval: approvalOf({ quorum: 2 }) });
    await Promise.all([one.as(alice).approve(yes), two.as(alice).approve(yes)]);
    const { approval } = await one.as(alice).getApproval({ approvalId });
    expect(approval).toMatchObject({ state: ApprovalState.PENDING, votes: [{ reviewer: "alice" }] });
  });

  test("whoever votes is who the credential names", async () => {
    await using replica = await startReplica(await openJournal());
    await ask(replica, 1);
    const carol: Caller = { kind: "person", tenant: "demo", name: "carol", roles: ["reviewer"], groups: ["leads"] };
    const { approval } = await replica.as(carol).approve({ ...yes, comment: "reviewer: alice" });
    expect(approval?.votes.map((vote) => vote.reviewer)).toEqual(["carol"]);
  });
});

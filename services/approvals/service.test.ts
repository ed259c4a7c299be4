import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { ApprovalState } from "../../proto/interlock/v1/approvals_pb.ts";
import { HASH, NOW_MS, OTHER_HASH, TTL_MS, uuid } from "./fixture.ts";
import { MAX_LISTED } from "./list.ts";
import { type Entry, NOBODY } from "./people.ts";
import {
  type ApprovalInit,
  agent,
  alice,
  approvalId,
  approvalOf,
  bob,
  broker,
  nextEnds,
  openJournal,
  operator,
  person,
  type Replica,
  refusalOf,
  startReplica,
  stranger,
  yes,
} from "./service-fixture.ts";

describe("a request and its answers", () => {
  test("what was asked is what a reviewer sees, and the answer names who gave it", async () => {
    await using replica = await startReplica(await openJournal());
    const asked = await replica.as(broker).requestApproval({ approval: approvalOf({ quorum: 0 }) });
    expect(asked.approval).toMatchObject({
      ...approvalOf(),
      state: ApprovalState.PENDING,
      createTime: timestampFromMs(NOW_MS),
      votes: [],
    });
    expect((await replica.as(alice).getApproval({ approvalId })).approval).toEqual(asked.approval);
    expect((await replica.as(operator).listApprovals({})).approvals).toEqual([asked.approval]);

    const { approval } = await replica.as(alice).approve(yes);
    expect(approval).toMatchObject({
      state: ApprovalState.APPROVED,
      votes: [
        { reviewer: "alice", approve: true, comment: "The order is real.", time: { seconds: BigInt(NOW_MS / 1000) } },
      ],
    });
    expect((await replica.as(alice).listApprovals({})).approvals).toEqual([]);
    const { approvals } = await replica.as(alice).listApprovals({ state: ApprovalState.APPROVED });
    expect(approvals).toEqual([approval]);
  });

  test("state and votes of a request are ignored", async () => {
    await using replica = await startReplica(await openJournal());
    const forged = { state: ApprovalState.APPROVED, votes: [{ reviewer: "alice", approve: true }] };
    const { approval } = await replica.as(broker).requestApproval({ approval: approvalOf(forged) });
    expect(approval).toMatchObject({ state: ApprovalState.PENDING, votes: [] });
  });

  test("a repeat of anything is the same thing", async () => {
    await using replica = await startReplica(await openJournal());
    const request = { approval: approvalOf({ quorum: 2 }) };
    const asked = await replica.as(broker).requestApproval(request);
    expect(await replica.as(broker).requestApproval(request)).toEqual(asked);
    const once = await replica.as(alice).approve(yes);
    expect(once.approval?.state).toBe(ApprovalState.PENDING);
    expect(await replica.as(alice).approve(yes)).toEqual(once);
    const withdrawal = { tenant: "demo", approvalId, reason: "The session was killed." };
    const cancelled = await replica.as(broker).cancelApproval(withdrawal);
    expect(cancelled.approval?.state).toBe(ApprovalState.CANCELLED);
    expect(await replica.as(broker).cancelApproval(withdrawal)).toEqual(cancelled);
    expect(await nextEnds(replica.as(broker), "", 1)).toHaveLength(1);
  });

  test("of long ones a list holds the newest that fit a message", async () => {
    await using replica = await startReplica(await openJournal());
    const argumentsJson = JSON.stringify({ a: "x".repeat(200_000) });
    for (let n = 1; n <= 8; n++) {
      await replica.as(broker).requestApproval({ approval: approvalOf({ approvalId: uuid(n), argumentsJson }) });
    }
    const { approvals } = await replica.as(alice).listApprovals({});
    expect(approvals.map((one) => one.approvalId)).toEqual([8, 7, 6, 5, 4].map(uuid));
  });

  test("the newest come first, and no more than one answer holds", async () => {
    await using replica = await startReplica(await openJournal());
    const ask = (n: number) =>
      replica.as(broker).requestApproval({
        approval: approvalOf({ approvalId: uuid(n), createTime: timestampFromMs(NOW_MS - n) }),
      });
    await Promise.all(Array.from({ length: MAX_LISTED + 5 }, (_, n) => ask(n)));
    const { approvals } = await replica.as(alice).listApprovals({});
    expect(approvals).toHaveLength(MAX_LISTED);
    expect(approvals[0]?.approvalId).toBe(uuid(0));
    expect(approvals.at(-1)?.approvalId).toBe(uuid(MAX_LISTED - 1));
  });
});

type Refused = [name: string, attempt: (replica: Replica) => Promise<unknown>, want: object];
const refused: Refused[] = [
  [
    "an id nobody knows",
    (r) => r.as(alice).getApproval({ approvalId: uuid(9) }),
    { code: "NOT_FOUND", reason: "APPROVAL_NOT_FOUND" },
  ],
  [
    "an id that is none",
    (r) => r.as(alice).getApproval({ approvalId: "7" }),
    { code: "INVALID_ARGUMENT", field: "approval_id" },
  ],
  [
    "a state that is none",
    (r) => r.as(alice).listApprovals({ state: 99 as ApprovalState }),
    { code: "INVALID_ARGUMENT", field: "state" },
  ],
  ["no hash", (r) => r.as(alice).approve({ approvalId }), { code: "INVALID_ARGUMENT", field: "arguments_hash" }],
  [
    "another hash",
    (r) => r.as(alice).approve({ ...yes, argumentsHash: OTHER_HASH }),
    { code: "FAILED_PRECONDITION", reason: "ARGS_MISMATCH", field: "arguments_hash" },
  ],
  [
    "a comment too long",
    (r) => r.as(alice).reject({ approvalId, comment: "x".repeat(2001) }),
    { code: "INVALID_ARGUMENT", field: "comment" },
  ],
  [
    "a person outside the group",
    (r) => r.as(person("eve", [])).approve(yes),
    { code: "PERMISSION_DENIED", reason: "NOT_ELIGIBLE", metadata: { approver_group: "leads" } },
  ],
  [
    "the user the agent acts for",
    (r) => r.as(person("uma", ["leads"])).approve(yes),
    { code: "PERMISSION_DENIED", reason: "SELF_APPROVAL" },
  ],
  [
    "an operator who answers",
    (r) => r.as(operator).approve(yes),
    { code: "PERMISSION_DENIED", reason: "REVIEWERS_ONLY" },
  ],
  ["an agent that answers", (r) => r.as(agent).approve(yes), { code: "PERMISSION_DENIED", reason: "REVIEWERS_ONLY" }],
  [
    "a service that answers",
    (r) => r.as(broker).reject({ tenant: "demo", approvalId }),
    { code: "PERMISSION_DENIED", reason: "REVIEWERS_ONLY" },
  ],
  [
    "an agent that reads",
    (r) => r.as(agent).getApproval({ approvalId }),
    { code: "PERMISSION_DENIED", reason: "REVIEWERS_ONLY" },
  ],
  [
    "an agent that lists",
    (r) => r.as(agent).listApprovals({}),
    { code: "PERMISSION_DENIED", reason: "REVIEWERS_ONLY" },
  ],
  [
    "a reviewer who asks",
    (r) => r.as(alice).requestApproval({ approval: approvalOf() }),
    { code: "PERMISSION_DENIED", reason: "SERVICES_ONLY" },
  ],
  [
    "an agent that asks",
    (r) => r.as(agent).requestApproval({ approval: approvalOf() }),
    { code: "PERMISSION_DENIED", reason: "SERVICES_ONLY" },
  ],
  [
    "an operator who withdraws",
    (r) => r.as(operator).cancelApproval({ approvalId }),
    { code: "PERMISSION_DENIED", reason: "SERVICES_ONLY" },
  ],
  [
    "a reviewer who watches",
    (r) => nextEnds(r.as(alice), "", 1),
    { code: "PERMISSION_DENIED", reason: "SERVICES_ONLY" },
  ],
  ["a position that is none", (r) => nextEnds(r.as(broker), "1e3", 1), { code: "INVALID_ARGUMENT", field: "after" }],
  [
    "another request under the same id",
    (r) => r.as(broker).requestApproval({ approval: approvalOf({ argumentsHash: OTHER_HASH }) }),
    { code: "ALREADY_EXISTS", reason: "APPROVAL_MISMATCH", field: "approval.arguments_hash" },
  ],
  [
    "a withdrawal of nothing",
    (r) => r.as(broker).cancelApproval({ tenant: "demo", approvalId: uuid(9) }),
    { code: "NOT_FOUND", reason: "APPROVAL_NOT_FOUND" },
  ],
  [
    "a withdrawal without a tenant",
    (r) => r.as(broker).cancelApproval({ approvalId }),
    { code: "INVALID_ARGUMENT", field: "tenant" },
  ],
];
const malformed: [field: string, overrides: ApprovalInit][] = [
  ["approval_id", { approvalId: "1" }],
  ["approval_id", { approvalId: uuid(0xabc).toUpperCase() }],
  ["ref.session", { ref: { session: "a.b", callId: uuid(2) } }],
  ["ref.call_id", { ref: { session: "s1" } }],
  ["principal.tenant", { principal: { agent: "a", session: "s" } }],
  ["principal.user", { principal: { tenant: "demo", agent: "a", session: "s", user: "u v" } }],
  ["tool", { tool: "Orders" }],
  ["tool_digest", { toolDigest: "" }],
  ["arguments_hash", { argumentsHash: HASH.toUpperCase() }],
  ["arguments_json", { argumentsJson: "" }],
  ["arguments_json", { argumentsJson: "[]" }],
  ["arguments_json", { argumentsJson: '{"a":1,"a":2}' }],
  ["arguments_json", { argumentsJson: JSON.stringify({ a: "x".repeat(256 << 10) }) }],
  ["reasons", { reasons: Array<string>(101).fill("why") }],
  ["price.0.unit", { price: [{ unit: "eur", value: 1n }] }],
  ["price.0.value", { price: [{ unit: "calls", value: -1n }] }],
  ["labels", { labels: Array<string>(65).fill("l") }],
  ["approver_group", { approverGroup: "a group" }],
  ["quorum", { quorum: 21 }],
  ["expire_time", { expireTime: timestampFromMs(NOW_MS) }],
  ["expire_time", { expireTime: timestampFromMs(NOW_MS + 31 * 24 * TTL_MS) }],
];
describe("refusals", () => {
  test.each(refused)("%s", async (_, attempt, want) => {
    await using replica = await startReplica(await openJournal());
    const before = await replica.as(broker).requestApproval({ approval: approvalOf() });
    expect(await refusalOf(attempt(replica))).toMatchObject(want);
    expect((await replica.as(alice).getApproval({ approvalId })).approval).toEqual(before.approval);
  });

  test.each(malformed)("a request with a wrong %s (case %#)", async (field, overrides) => {
    await using replica = await startReplica(await openJournal());
    const refusal = await refusalOf(replica.as(broker).requestApproval({ approval: approvalOf(overrides) }));
    expect(refusal).toMatchObject({ code: "INVALID_ARGUMENT", field: `approval.${field}` });
    expect(refusal.message).toMatch(/^Change approval\.[^\n]+\.$/);
  });

  test("a request without an approval or an expiry", async () => {
    await using replica = await startReplica(await openJournal());
    const { expireTime: _, ...endless } = approvalOf();
    expect(await refusalOf(replica.as(broker).requestApproval({}))).toMatchObject({ field: "approval" });
    const refusal = await refusalOf(replica.as(broker).requestApproval({ approval: endless }));
    expect(refusal).toMatchObject({ field: "approval.expire_time" });
  });

  test("who answers after the end is told how it ended, by whom and when", async () => {
    await using replica = await startReplica(await openJournal());
    await replica.as(broker).requestApproval({ approval: approvalOf() });
    await replica.as(alice).reject({ approvalId, comment: "Not this one." });
    const refusal = await refusalOf(replica.as(bob).approve(yes));
    expect(refusal).toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "APPROVAL_REJECTED",
      metadata: { state: "REJECTED", by: "alice" },
    });
    expect(refusal.message).toContain(`alice rejected this at ${new Date(NOW_MS).toISOString()}`);
  });
});

describe("tenants", () => {
  test("another tenant's people find nothing, by id, by list or by name", async () => {
    await using replica = await startReplica(await openJournal());
    await replica.as(broker).requestApproval({ approval: approvalOf() });
    const there = replica.as(stranger);
    const unknown = await refusalOf(there.getApproval({ approvalId: uuid(9) }));
    expect(await refusalOf(there.getApproval({ approvalId }))).toEqual(unknown);
    expect(await refusalOf(there.approve(yes))).toEqual(unknown);
    expect((await there.listApprovals({})).approvals).toEqual([]);
    const named = await refusalOf(there.getApproval({ tenant: "demo", approvalId }));
    expect(named).toMatchObject({ code: "NOT_FOUND", reason: "CROSS_TENANT" });
    expect(await refusalOf(there.approve({ tenant: "nowhere", ...yes }))).toEqual(named);
    expect(await refusalOf(there.listApprovals({ tenant: "demo" }))).toEqual(named);
    expect((await replica.as(alice).getApproval({ tenant: "demo", approvalId })).approval?.votes).toEqual([]);
  });

  test("the same id in two tenants is two approvals", async () => {
    await using replica = await startReplica(await openJournal());
    const principal = { tenant: "other", agent: "demo-agent", session: "s1", user: "" };
    await replica.as(broker).requestApproval({ approval: approvalOf() });
    await replica.as(broker).requestApproval({ approval: approvalOf({ principal }) });
    await replica.as(stranger).approve(yes);
    expect((await replica.as(alice).getApproval({ approvalId })).approval?.state).toBe(ApprovalState.PENDING);
  });
});

test("a yes given ahead counts for as long as its giver may still answer", async () => {
  let now: Pick<Entry, "groups" | "roles"> | undefined = { groups: ["leads"], roles: ["reviewer"] };
  const find = () => now && { tenant: "demo", name: "alice", ...now };
  await using replica = await startReplica(await openJournal(), undefined, { ...NOBODY, find });
  const next = async (n: number) => {
    const { principal } = approvalOf();
    const approval = approvalOf({ approvalId: uuid(n), principal, ref: { session: "s1", callId: uuid(n) } });
    return (await replica.as(broker).requestApproval({ approval })).approval?.state;
  };
  await replica.as(broker).requestApproval({ approval: approvalOf() });
  const grant = { uses: 9, duration: { seconds: 60n, nanos: 0 }, bounds: [] };
  await replica.as(alice).approve({ ...yes, grant });
  expect(await next(2)).toBe(ApprovalState.APPROVED);
  now = { groups: ["interns"], roles: ["reviewer"] };
  expect(await next(3)).toBe(ApprovalState.PENDING);
  now = { groups: ["leads"], roles: ["operator"] };
  expect(await next(4)).toBe(ApprovalState.PENDING);
  now = undefined;
  expect(await next(5)).toBe(ApprovalState.PENDING);
  now = { groups: ["leads"], roles: ["reviewer"] };
  expect(await next(6)).toBe(ApprovalState.APPROVED);
});

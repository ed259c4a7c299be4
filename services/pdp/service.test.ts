import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import {
  DecideBatchRequestSchema,
  DecidePossibleRequestSchema,
  DecidePossibleResponseSchema,
  DecideRequestSchema,
  DecideResponseSchema,
  GetRevisionRequestSchema,
} from "../../proto/interlock/v1/pdp_pb.ts";
import { DecisionKind, type FactsSchema, Impact, LoopVerdict } from "../../proto/interlock/v1/types_pb.ts";
import type { RpcError } from "../shared/rpc/errors.ts";
import type { Caller } from "../shared/rpc/types.ts";
import { POLICIES, withPolicyDir } from "./fixture.ts";
import { broker, contextOf, openPdp, operator } from "./service-fixture.ts";

const refund = {
  principal: { tenant: "demo", agent: "support", session: "s1", user: "" },
  tool: { name: "orders.refund", version: "1.0.0", impact: Impact.HIGH, effects: ["spends"], groups: ["money"] },
  argumentsJson: '{"amount_usd_micros":30000000}',
  labels: ["private-data"],
  loop: LoopVerdict.CLEAR,
  time: { seconds: 1_770_000_000n, nanos: 5 },
} satisfies MessageInitShape<typeof FactsSchema>;

async function decide(facts: MessageInitShape<typeof FactsSchema>, caller: Caller = broker) {
  await using pdp = await openPdp(POLICIES);
  const answer = await pdp.handlers.decide(create(DecideRequestSchema, { facts }), contextOf(caller));
  return create(DecideResponseSchema, answer).decision;
}

describe("Decide", () => {
  test("answers with kind, reasons, rules, obligations and the revision", async () => {
    const decision = await decide(refund);
    expect(decision).toMatchObject({
      kind: DecisionKind.REQUIRE_APPROVAL,
      reasons: ["A refund above 20 USD needs a support lead's yes."],
      matchedRules: [expect.stringMatching(/^policy\.csv:\d+$/)],
      obligations: { approverGroup: "support-leads", quorum: 1, approvalTtlMs: 3_600_000n },
      revision: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    expect(decision?.obligations?.limits).toBeUndefined();
  });

  test("limits go out in their own units", async () => {
    const tool = { ...refund.tool, name: "math.compute" };
    const decision = await decide({ ...refund, principal: { ...refund.principal, agent: "analyst" }, tool });
    expect(decision).toMatchObject({
      kind: DecisionKind.ALLOW,
      obligations: { limits: { wallMs: 5000n, cpuMs: 0n, pids: 0 } },
    });
  });

  const { principal, tool } = refund;
  test.each<[field: string, facts: MessageInitShape<typeof FactsSchema>]>([
    ["facts.principal", { ...refund, principal: undefined as never }],
    ["facts.principal.tenant", { ...refund, principal: { ...principal, tenant: "" } }],
    ["facts.principal.agent", { ...refund, principal: { ...principal, agent: "a b" } }],
    ["facts.principal.session", { ...refund, principal: { ...principal, session: "../x" } }],
    ["facts.principal.user", { ...refund, principal: { ...principal, user: "a\nb" } }],
    ["facts.tool", { ...refund, tool: undefined as never }],
    ["facts.tool.name", { ...refund, tool: { ...tool, name: "Orders" } }],
    ["facts.tool.version", { ...refund, tool: { ...tool, version: "1" } }],
    ["facts.tool.impact", { ...refund, tool: { ...tool, impact: Impact.UNSPECIFIED } }],
    ["facts.tool.impact", { ...refund, tool: { ...tool, impact: 9 as Impact } }],
    ["facts.tool.effects.0", { ...refund, tool: { ...tool, effects: ["flies"] } }],
    ["facts.arguments_json", { ...refund, argumentsJson: "" }],
    ["facts.arguments_json", { ...refund, argumentsJson: "[1]" }],
    ["facts.arguments_json", { ...refund, argumentsJson: '{"a":1,"a":2}' }],
    ["facts.arguments_json", { ...refund, argumentsJson: JSON.stringify({ a: "x".repeat(256 << 10) }) }],
    ["facts.labels.0", { ...refund, labels: ["secret"] }],
    ["facts.loop", { ...refund, loop: LoopVerdict.UNSPECIFIED }],
    ["facts.loop", { ...refund, loop: 7 as LoopVerdict }],
    ["facts.time", { ...refund, time: undefined as never }],
    ["facts.time.seconds", { ...refund, time: { seconds: -1n, nanos: 0 } }],
  ])("refuses a bad %s, naming it", async (field, facts) => {
    await expect(decide(facts)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      field,
      message: expect.stringMatching(new RegExp(`^Change ${field}: .+\\.$`)),
    });
  });

  test("refuses a request without facts", async () => {
    await using pdp = await openPdp(POLICIES);
    const answer = pdp.handlers.decide(create(DecideRequestSchema), contextOf(broker));
    await expect(answer).rejects.toMatchObject({ code: "INVALID_ARGUMENT", field: "facts.principal" });
  });
});

describe("who may ask", () => {
  test.each<[name: string, caller: Caller]>([
    ["an agent", { kind: "agent", tenant: "demo", agent: "support" }],
    ["a reviewer", { ...operator, roles: ["reviewer"] }],
  ])("not %s", async (_name, caller) => {
    await using pdp = await openPdp(POLICIES);
    const { handlers } = pdp;
    const context = contextOf(caller);
    const refusal = { code: "PERMISSION_DENIED", reason: "OPERATOR_ONLY" };
    await expect(handlers.decide(create(DecideRequestSchema, { facts: refund }), context)).rejects.toMatchObject(
      refusal,
    );
    await expect(handlers.decideBatch(create(DecideBatchRequestSchema), context)).rejects.toMatchObject(refusal);
    await expect(handlers.getRevision(create(GetRevisionRequestSchema), context)).rejects.toMatchObject(refusal);
  });

  test("an operator, about their own tenant, named or not", async () => {
    const named = await decide(refund, operator);
    expect(named?.kind).toBe(DecisionKind.REQUIRE_APPROVAL);
    expect(await decide({ ...refund, principal: { ...refund.principal, tenant: "" } }, operator)).toEqual(named);
  });

  test("an operator learns the same of a tenant that exists and of one that does not", async () => {
    const other: Caller = { ...operator, tenant: "other" };
    const ask = (tenant: string) =>
      decide({ ...refund, principal: { ...refund.principal, tenant } }, other).catch((error: RpcError) => error);
    const [real, made] = [await ask("demo"), await ask("no-such-tenant")];
    expect(real).toMatchObject({ code: "NOT_FOUND", reason: "TENANT_NOT_FOUND", field: "facts.principal.tenant" });
    expect(String(made)).toBe(String(real));
  });
});

describe("DecideBatch", () => {
  test("decides each by itself, by one revision", async () => {
    await using pdp = await openPdp(POLICIES);
    const small = { ...refund, argumentsJson: '{"amount_usd_micros":1}' };
    const request = create(DecideBatchRequestSchema, { facts: [refund, small] });
    const { decisions } = await pdp.handlers.decideBatch(request, contextOf(broker));
    expect(decisions?.map((one) => one.kind)).toEqual([DecisionKind.REQUIRE_APPROVAL, DecisionKind.ALLOW]);
    expect(new Set(decisions?.map((one) => one.revision)).size).toBe(1);
  });

  test("names the facts at fault, and bounds their number", async () => {
    await using pdp = await openPdp(POLICIES);
    const ask = (facts: MessageInitShape<typeof FactsSchema>[]) =>
      pdp.handlers.decideBatch(create(DecideBatchRequestSchema, { facts }), contextOf(broker));
    await expect(ask([refund, { ...refund, labels: ["x"] }])).rejects.toMatchObject({ field: "facts[1].labels.0" });
    await expect(ask(Array.from({ length: 1001 }, () => refund))).rejects.toMatchObject({ reason: "BATCH_TOO_LARGE" });
  });
});

test("GetRevision: a service sees all rules, an operator those of their tenant", async () => {
  const files = { "policy.csv": "p, demo, *, *, allow, true, Yes.\np, other, *, *, deny, true, No." };
  await withPolicyDir(files, async (policyDir) => {
    await using pdp = await openPdp(policyDir);
    const ask = (caller: Caller) => pdp.handlers.getRevision(create(GetRevisionRequestSchema), contextOf(caller));
    const seen = await ask(broker);
    expect(seen).toEqual({ revision: expect.stringMatching(/^[0-9a-f]{64}$/), rules: 2 });
    expect(await ask(operator)).toEqual({ ...seen, rules: 1 });
  });
});

test("a policy that is not sound does not start", async () => {
  await withPolicyDir({ "policy.csv": "p, demo" }, async (policyDir) => {
    await expect(openPdp(policyDir)).rejects.toThrow(/policy\.csv:1: A rule is p, /);
  });
});

test("disposing twice is fine", async () => {
  const pdp = await openPdp(POLICIES);
  await pdp[Symbol.asyncDispose]();
  await expect(pdp[Symbol.asyncDispose]()).resolves.toBeUndefined();
});

describe("DecidePossible", () => {
  const cases: [what: string, change: object, want: DecisionKind][] = [
    ["a rule that reads arguments may ask for approval", {}, DecisionKind.REQUIRE_APPROVAL],
    ["what no rule allows stays denied", { tool: { ...refund.tool, name: "shell.run" } }, DecisionKind.DENY],
    ["a deny that reads no arguments stays", { loop: LoopVerdict.STOPPED }, DecisionKind.DENY],
    ["another tenant is another policy", { principal: { ...refund.principal, tenant: "none" } }, DecisionKind.DENY],
  ];
  test.each(cases)("%s", async (_, change, want) => {
    await using pdp = await openPdp(POLICIES);
    const facts = [{ ...refund, labels: [], argumentsJson: "", ...change }];
    const request = create(DecidePossibleRequestSchema, { facts });
    const answer = create(DecidePossibleResponseSchema, await pdp.handlers.decidePossible(request, contextOf(broker)));
    expect(answer.decisions.map(({ kind }) => kind)).toEqual([want]);
  });
});

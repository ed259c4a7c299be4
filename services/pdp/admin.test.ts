import { create } from "@bufbuild/protobuf";
import { v7 as uuidv7 } from "uuid";
import { describe, expect, test } from "vitest";
import {
  ApproveChangeRequestSchema,
  DecideRequestSchema,
  GetPolicyRequestSchema,
  GetRevisionRequestSchema,
  GetShadowRequestSchema,
  ListRevisionsRequestSchema,
  RejectChangeRequestSchema,
  RollbackPolicyRequestSchema,
  SetShadowRequestSchema,
  StandingState,
} from "../../proto/interlock/v1/pdp_pb.ts";
import { DecisionKind } from "../../proto/interlock/v1/types_pb.ts";
import type { Caller } from "../shared/rpc/types.ts";
import { newSigningKeyPem, signerFromPem } from "../shared/signing.ts";
import { packBundle, unpackBundle } from "./bundle.ts";
import { factsOf, withPolicyDir } from "./fixture.ts";
import type { Pdp } from "./service.ts";
import { broker, contextOf, openPdp, openTestJournal, operator, personOf, pushOf } from "./service-fixture.ts";
import { signBundle } from "./signed.ts";
import { toFacts } from "./wire.ts";

/** How a policy changes: who may, what stops it, who is told, and that nothing is half changed. */

const ADMINS = `g, user:olga, role:policy-admin, demo
g, user:paul, role:policy-admin, demo
g, user:quinn, role:policy-admin, demo`;
const MAY_CHANGE = "p, demo, role:policy-admin, policy.*, allow, true, Policy admins may change the policy.";
const BASE = `${ADMINS}\n${MAY_CHANGE}\np, demo, agent:a, orders.lookup, allow, true, A looks up.\n`;
const WIDER = `${BASE}p, demo, agent:a, orders.refund, allow, r.args.amount <= 5, A refunds up to 5.\n`;
const FOUR_EYES = BASE.replace(
  MAY_CHANGE,
  `p, demo, role:policy-admin, policy.push, require_approval, true, Two look at a change.
p, demo, role:policy-admin, policy.rollback, require_approval, true, Two look at a change., approver_group=seniors
p, demo, role:policy-admin, policy.approve, allow, true, Admins may approve.`,
);

const refund = factsOf({ tenant: "demo", tool: { name: "orders.refund" }, args: { amount: 5 } });

async function withPdp<T>(
  policy: string,
  use: (pdp: Pdp) => Promise<T>,
  change: Parameters<typeof openPdp>[1] = {},
): Promise<T> {
  return await withPolicyDir({ "policy.csv": policy }, async (dir) => {
    await using pdp = await openPdp(dir, change);
    return await use(pdp);
  });
}

async function push(pdp: Pdp, policy: string, change: Parameters<typeof pushOf>[1] = {}, caller: Caller = operator) {
  return await pdp.handlers.pushPolicy(await pushOf({ "policy.csv": policy }, change), contextOf(caller));
}

async function decide(pdp: Pdp, facts = refund) {
  const { decision } = await pdp.handlers.decide(
    create(DecideRequestSchema, { facts: toFacts(facts) }),
    contextOf(broker),
  );
  return { kind: decision?.kind, revision: decision?.revision };
}

const revisionOf = async (pdp: Pdp) =>
  (await pdp.handlers.getRevision(create(GetRevisionRequestSchema), contextOf(operator))).revision;
const log = (pdp: Pdp) => pdp.handlers.listRevisions(create(ListRevisionsRequestSchema), contextOf(operator));
/** How far a change has got, whichever call answers with it. */
const stateOf = (answer: object) => (answer as { standing?: { state?: StandingState } }).standing?.state;

const UNSOUND: [name: string, files: Record<string, string>, refusal: object][] = [
  [
    "a malformed rule",
    { "policy.csv": `${BASE}p, demo, *\n` },
    { reason: "POLICY_UNSOUND", message: /^policy\.csv:6: A rule is p, / },
  ],
  [
    "an unknown role",
    { "policy.csv": `${BASE}p, demo, role:nobody, orders.lookup, allow, true, X.\n` },
    { reason: "POLICY_UNSOUND", message: /^policy\.csv:6: subject: Nobody in tenant demo has role:nobody/ },
  ],
  [
    "an unknown tool",
    { "policy.csv": `${BASE}p, demo, *, orders.refnud, deny, true, X.\n` },
    {
      reason: "POLICY_UNSOUND",
      message:
        /^policy\.csv:6: tool: There is no tool orders\.refnud; mend the name \(orders\.lookup, orders\.refund\)/,
    },
  ],
  [
    "an unknown function",
    { "policy.csv": `${BASE}p, demo, *, orders.lookup, deny, near(r.user), X.\n` },
    { reason: "POLICY_UNSOUND", message: /^policy\.csv:6: when: near\(\) is no function/ },
  ],
  [
    "another tenant's line",
    { "policy.csv": `${BASE}p, other, *, orders.lookup, deny, true, X.\n` },
    { reason: "POLICY_UNSOUND", message: /^policy\.csv:6: tenant: This is tenant other's/ },
  ],
  [
    "one after which nobody could change it",
    { "policy.csv": "p, demo, *, orders.lookup, allow, true, X.\n" },
    { reason: "POLICY_UNSOUND", message: /nobody could change the policy any more/ },
  ],
  [
    "a failing test",
    {
      "policy.csv": BASE,
      "tests/a.yaml":
        "defaults: { tenant: demo, agent: a }\ntests:\n  - { name: Refunds, tool: orders.refund, expect: allow }\n",
    },
    { reason: "POLICY_TESTS_FAILED", message: /^tests\/a\.yaml:3: Refunds: expected allow, decided deny/ },
  ],
  [
    "a malformed test",
    { "policy.csv": BASE, "tests/a.yaml": "tests:\n  - { name: X, agent: a, tool: orders.refund, expect: maybe }\n" },
    { reason: "POLICY_UNSOUND", message: /^tests\/a\.yaml:2: tests\.0\.expect: write allow, require_approval, deny/ },
  ],
];

describe("push", () => {
  test("is live at once, and decisions name the revision they were made by", async () => {
    await withPdp(BASE, async (pdp) => {
      const before = await decide(pdp);
      const pushed = await push(pdp, WIDER, { reason: "Small refunds." });
      expect(pushed.standing).toMatchObject({ state: StandingState.ACTIVE, number: 1 });
      const after = await decide(pdp);
      expect([before.kind, after.kind]).toEqual([DecisionKind.DENY, DecisionKind.ALLOW]);
      expect(after.revision).toBe(pushed.standing?.revision);
      expect(after.revision).not.toBe(before.revision);
      const { revisions } = await log(pdp);
      expect(revisions?.[1]).toMatchObject({
        number: 1,
        author: "olga",
        reason: "Small refunds.",
        linesAdded: 1,
        linesRemoved: 0,
        active: true,
      });
    });
  });

  test("a dry run tells everything and changes nothing", async () => {
    await withPdp(BASE, async (pdp) => {
      await decide(pdp);
      const before = await revisionOf(pdp);
      const { candidate, standing } = await push(pdp, WIDER, { dryRun: true });
      expect(standing?.state).toBe(StandingState.DRY_RUN);
      expect(candidate).toMatchObject({
        linesAdded: 1,
        linesRemoved: 0,
        diff: ["+ policy.csv:6 p, demo, agent:a, orders.refund, allow, r.args.amount <= 5, A refunds up to 5."],
      });
      expect(candidate?.replayed).toMatchObject({
        decisions: 1,
        changes: [
          {
            subject: "agent:a",
            tool: "orders.refund",
            before: DecisionKind.DENY,
            after: DecisionKind.ALLOW,
            rulesAfter: ["policy.csv:6"],
            count: 1,
          },
        ],
      });
      expect(await revisionOf(pdp)).toBe(before);
      expect((await log(pdp)).revisions).toHaveLength(1);
    });
  });

  test.each(UNSOUND)("refuses %s by file, line and mend, and changes nothing", async (_name, files, refusal) => {
    await withPdp(BASE, async (pdp) => {
      const before = await revisionOf(pdp);
      const { message, ...rest } = refusal as { message: RegExp };
      const pushed = pdp.handlers.pushPolicy(await pushOf(files), contextOf(operator));
      await expect(pushed).rejects.toMatchObject({
        code: "FAILED_PRECONDITION",
        ...rest,
        message: expect.stringMatching(message),
      });
      expect(await revisionOf(pdp)).toBe(before);
      expect((await log(pdp)).revisions).toHaveLength(1);
    });
  });
});

describe("a push that is sent again, late or wrong", () => {
  test("the same change sent twice is one, and an id does not serve two", async () => {
    await withPdp(BASE, async (pdp) => {
      const changeId = uuidv7();
      const once = await push(pdp, WIDER, { changeId });
      expect((await push(pdp, WIDER, { changeId })).standing).toEqual(once.standing);
      expect((await log(pdp)).revisions).toHaveLength(2);
      await expect(
        push(pdp, `${WIDER}# other\ng, agent:b, role:policy-admin, demo\n`, { changeId }),
      ).rejects.toMatchObject({ reason: "CHANGE_ID_REUSED" });
    });
  });

  test("a push looked at against another revision is refused", async () => {
    await withPdp(BASE, async (pdp) => {
      const seen = await revisionOf(pdp);
      await push(pdp, WIDER);
      await expect(push(pdp, BASE, { baseRevision: seen ?? "" })).rejects.toMatchObject({
        code: "ABORTED",
        reason: "POLICY_OUTDATED",
      });
    });
  });

  test.each<[field: string, change: Parameters<typeof pushOf>[1]]>([
    ["reason", { reason: " " }],
    ["change_id", { changeId: "x" }],
  ])("names a bad %s", async (field, change) => {
    await withPdp(BASE, async (pdp) => {
      await expect(push(pdp, WIDER, change)).rejects.toMatchObject({ code: "INVALID_ARGUMENT", field });
    });
  });

  test.each<[name: string, bundle: Uint8Array]>([
    ["no gzip", Buffer.from("p, demo")],
    ["nothing", new Uint8Array()],
  ])("a bundle that is %s is refused", async (_name, bundle) => {
    await withPdp(BASE, async (pdp) => {
      const request = { ...(await pushOf({ "policy.csv": BASE })), bundle };
      await expect(pdp.handlers.pushPolicy(request, contextOf(operator))).rejects.toMatchObject({ field: "bundle" });
    });
  });
});

describe("who may change the policy", () => {
  test.each<[name: string, caller: Caller, reason: string]>([
    ["an agent", { kind: "agent", tenant: "demo", agent: "a" }, "OPERATOR_ONLY"],
    ["a reviewer", personOf("olga", { roles: ["reviewer"] }), "OPERATOR_ONLY"],
    ["a service", broker, "OPERATOR_ONLY"],
    ["an operator whom no rule lets", personOf("mallory"), "POLICY_DENIED"],
    ["an operator of another tenant", personOf("olga", { tenant: "other" }), "POLICY_DENIED"],
  ])("not %s", async (_name, caller, reason) => {
    await withPdp(BASE, async (pdp) => {
      await expect(push(pdp, WIDER, {}, caller)).rejects.toMatchObject({ code: "PERMISSION_DENIED", reason });
      expect((await log(pdp)).revisions).toHaveLength(1);
    });
  });

  test("the active policy judges, not the one that is pushed", async () => {
    await withPdp(BASE, async (pdp) => {
      const mine = BASE.replace("user:quinn", "user:mallory");
      await expect(push(pdp, mine, {}, personOf("mallory"))).rejects.toMatchObject({ reason: "POLICY_DENIED" });
    });
  });

  test("a change can need a second person, never its author, and is live only then", async () => {
    await withPdp(FOUR_EYES, async (pdp) => {
      const pushed = await push(pdp, `${FOUR_EYES}p, demo, agent:a, orders.refund, allow, true, Any.\n`);
      expect(pushed.standing).toMatchObject({ state: StandingState.WAITING, approvalsNeeded: 1, approvedBy: [] });
      expect((await decide(pdp)).kind).toBe(DecisionKind.DENY);
      const approve = (name: string, groups: string[] = []) =>
        pdp.handlers.approveChange(
          create(ApproveChangeRequestSchema, { changeId: pushed.standing?.changeId ?? "" }),
          contextOf(personOf(name, { groups })),
        );
      await expect(approve("olga")).rejects.toMatchObject({ reason: "OWN_CHANGE" });
      await expect(approve("mallory")).rejects.toMatchObject({ reason: "POLICY_DENIED" });
      expect((await decide(pdp)).kind).toBe(DecisionKind.DENY);
      expect(stateOf(await approve("paul"))).toBe(StandingState.ACTIVE);
      expect((await decide(pdp)).kind).toBe(DecisionKind.ALLOW);
    });
  });

  test("an approver must belong to the group that the rule names", async () => {
    await withPdp(FOUR_EYES, async (pdp) => {
      const pushed = await push(pdp, FOUR_EYES.replace("A looks up.", "A may look up."));
      const approve = (changeId: string, groups: string[]) =>
        pdp.handlers.approveChange(
          create(ApproveChangeRequestSchema, { changeId }),
          contextOf(personOf("paul", { groups })),
        );
      await approve(pushed.standing?.changeId ?? "", []);
      const rollback = create(RollbackPolicyRequestSchema, { reason: "Back.", changeId: uuidv7() });
      const { standing } = await pdp.handlers.rollbackPolicy(rollback, contextOf(operator));
      expect(standing).toMatchObject({ state: StandingState.WAITING, approverGroup: "seniors" });
      await expect(approve(rollback.changeId, ["juniors"])).rejects.toMatchObject({ reason: "NOT_IN_GROUP" });
      expect(stateOf(await approve(rollback.changeId, ["seniors"]))).toBe(StandingState.ACTIVE);
    });
  });

  test("a change that waits is outdated once another one is live, and can be rejected", async () => {
    await withPdp(FOUR_EYES, async (pdp) => {
      const wait = async (text: string) =>
        (await push(pdp, FOUR_EYES.replace("A looks up.", text))).standing?.changeId ?? "";
      const [first, second] = [await wait("One."), await wait("Two.")];
      const paul = contextOf(personOf("paul"));
      await pdp.handlers.approveChange(create(ApproveChangeRequestSchema, { changeId: first }), paul);
      await expect(
        pdp.handlers.approveChange(create(ApproveChangeRequestSchema, { changeId: second }), paul),
      ).rejects.toMatchObject({ reason: "POLICY_OUTDATED" });
      const { waiting } = await log(pdp);
      expect(waiting).toMatchObject([
        { standing: { changeId: second, state: StandingState.OUTDATED }, author: "olga" },
      ]);
      const reject = create(RejectChangeRequestSchema, { changeId: second, reason: "Too late." });
      expect(stateOf(await pdp.handlers.rejectChange(reject, contextOf(operator)))).toBe(StandingState.REJECTED);
      expect((await log(pdp)).waiting).toEqual([]);
    });
  });
});

describe("rollback, show and restart", () => {
  test("rollback makes the one before active again, by name the same revision", async () => {
    await withPdp(BASE, async (pdp) => {
      const files = await revisionOf(pdp);
      const one = (await push(pdp, WIDER)).standing?.revision;
      await push(pdp, WIDER.replace("up to 5", "up to five"));
      const rollback = async (number?: number) => {
        const request = create(RollbackPolicyRequestSchema, {
          ...(number !== undefined && { number }),
          reason: "Back.",
          changeId: uuidv7(),
        });
        await pdp.handlers.rollbackPolicy(request, contextOf(operator));
        return await revisionOf(pdp);
      };
      expect(await rollback()).toBe(one);
      expect(await rollback(2)).not.toBe(one);
      await expect(rollback(9)).rejects.toMatchObject({ reason: "REVISION_NOT_FOUND" });
      expect(await rollback(1)).toBe(one);
      expect(await rollback(0)).toBe(files);
      expect(files).not.toBe(one);
    });
  });

  test("show gives back the files as they were pushed", async () => {
    await withPdp(BASE, async (pdp) => {
      await push(pdp, WIDER);
      const get = async (number?: number) => {
        const { bundle } = await pdp.handlers.getPolicy(
          create(GetPolicyRequestSchema, number === undefined ? {} : { number }),
          contextOf(operator),
        );
        return (await unpackBundle(bundle ?? new Uint8Array())).get("policy.csv");
      };
      expect([await get(), await get(1), await get(0)]).toEqual([WIDER, WIDER, BASE]);
      await push(pdp, BASE);
      expect([await get(), await get(1)]).toEqual([BASE, WIDER]);
    });
  });

  test("of files that hold several tenants' rules an operator is shown their own lines, in their places", async () => {
    const own = `${BASE}`;
    await withPdp(
      `# Secret plans of other.\np, other, agent:x, orders.refund, allow, true, Secret.\n${own}`,
      async (pdp) => {
        const { bundle } = await pdp.handlers.getPolicy(create(GetPolicyRequestSchema), contextOf(operator));
        expect((await unpackBundle(bundle ?? new Uint8Array())).get("policy.csv")).toBe(`\n\n${own}`);
      },
    );
  });

  test("a restarted pdp decides by the revision in the record, not by its files", async () => {
    await using journal = openTestJournal();
    const pushed = await withPdp(BASE, async (pdp) => (await push(pdp, WIDER)).standing?.revision, { journal });
    await withPdp(
      BASE,
      async (pdp) => expect(await decide(pdp)).toEqual({ kind: DecisionKind.ALLOW, revision: pushed }),
      { journal },
    );
  });

  test("what is pushed for one tenant leaves the others as they were", async () => {
    await withPdp(`${BASE}p, other, agent:a, orders.refund, allow, true, Other.\n`, async (pdp) => {
      const other = { ...refund, tenant: "other" };
      const before = await decide(pdp, other);
      await push(pdp, WIDER);
      expect(await decide(pdp, other)).toEqual(before);
    });
  });

  test("every replica switches by itself", async () => {
    await using journal = openTestJournal();
    await withPdp(
      BASE,
      async (here) => {
        await withPdp(
          BASE,
          async (there) => {
            const stop = new AbortController();
            const watching = there.handlers.watchRevisions({} as never, contextOf(operator, stop.signal));
            const seen = watching[Symbol.asyncIterator]();
            expect((await seen.next()).value).toMatchObject({ number: 0 });
            const next = seen.next();
            const pushed = await push(here, WIDER);
            expect((await next).value).toMatchObject({ number: 1, revision: pushed.standing?.revision });
            expect((await decide(there)).revision).toBe(pushed.standing?.revision);
            stop.abort();
          },
          { journal },
        );
      },
      { journal },
    );
  });
});

describe("signed policies", () => {
  const signer = signerFromPem(newSigningKeyPem());
  const stranger = signerFromPem(newSigningKeyPem());
  const signed = async (text: string, by = signer) => ({
    "policy.csv": text,
    "policy.sig": await signBundle(new Map([["policy.csv", text]]), by),
  });
  const trusting = { trustedKeys: [signer.publicKey] };

  test("with a key configured, unsigned files do not start", async () => {
    await expect(withPdp(BASE, async () => {}, trusting)).rejects.toThrow(
      /policy\.sig: Only signed policies are taken here/,
    );
  });

  test("with a key configured, only what that key signed goes live", async () => {
    await withPolicyDir(await signed(BASE), async (dir) => {
      await using pdp = await openPdp(dir, trusting);
      const send = async (files: Record<string, string>) =>
        await pdp.handlers.pushPolicy(await pushOf(files), contextOf(operator));
      await expect(send({ "policy.csv": WIDER })).rejects.toMatchObject({
        message: expect.stringMatching(/^policy\.sig: Only signed/),
      });
      await expect(send(await signed(WIDER, stranger))).rejects.toMatchObject({
        message: expect.stringMatching(/not trusted here/),
      });
      await expect(send({ ...(await signed(BASE)), "policy.csv": WIDER })).rejects.toMatchObject({
        message: expect.stringMatching(/not those that were signed/),
      });
      expect(stateOf(await send(await signed(WIDER)))).toBe(StandingState.ACTIVE);
      expect((await log(pdp)).revisions?.[1]).toMatchObject({ keyId: signer.keyId });
    });
  });

  test("an unsigned revision in the record denies everything once a key is configured", async () => {
    await using journal = openTestJournal();
    await withPdp(BASE, async (pdp) => void (await push(pdp, WIDER)), { journal });
    await withPolicyDir(await signed(BASE), async (dir) => {
      await using pdp = await openPdp(dir, { ...trusting, journal });
      const facts = { ...refund, tool: { ...refund.tool, name: "orders.lookup" } };
      expect((await decide(pdp, facts)).kind).toBe(DecisionKind.DENY);
    });
  });
});

describe("shadow", () => {
  test("a shadow decides beside the active revision, without effect, and reports what it would change", async () => {
    await withPdp(BASE, async (pdp) => {
      const bundle = await packBundle(new Map([["policy.csv", WIDER]]));
      const set = await pdp.handlers.setShadow(
        create(SetShadowRequestSchema, { bundle, reason: "Try." }),
        contextOf(operator),
      );
      expect((await decide(pdp)).kind).toBe(DecisionKind.DENY);
      await decide(pdp, { ...refund, args: { amount: 50 } });
      await new Promise((resolve) => setImmediate(resolve));
      const report = await pdp.handlers.getShadow(create(GetShadowRequestSchema), contextOf(operator));
      expect(report).toMatchObject({
        revision: set.revision,
        replayed: { decisions: 2, changes: [{ count: 1, before: DecisionKind.DENY, after: DecisionKind.ALLOW }] },
      });
      await pdp.handlers.setShadow(create(SetShadowRequestSchema, { reason: "Enough." }), contextOf(operator));
      expect(await pdp.handlers.getShadow(create(GetShadowRequestSchema), contextOf(operator))).toMatchObject({
        revision: "",
      });
    });
  });

  test("not by an operator whom no rule lets", async () => {
    await withPdp(BASE, async (pdp) => {
      const request = create(SetShadowRequestSchema, { reason: "Try." });
      await expect(pdp.handlers.setShadow(request, contextOf(personOf("mallory")))).rejects.toMatchObject({
        reason: "POLICY_DENIED",
      });
    });
  });
});

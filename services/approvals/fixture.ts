import type { Binding, NewApproval } from "./approval.ts";
import type { Reviewer } from "./decider.ts";

/** What the tests of this folder share. */

export const HASH = "a".repeat(64);
export const OTHER_HASH = "b".repeat(64);
export const NOW_MS = 1_770_000_000_000;
export const TTL_MS = 3_600_000;

export const alice: Reviewer = { name: "alice", groups: ["leads"] };
export const bob: Reviewer = { name: "bob", groups: ["leads", "finance"] };
export const carol: Reviewer = { name: "carol", groups: ["leads"] };
export const mallory: Reviewer = { name: "mallory", groups: ["finance"] };

/** A UUIDv7 that ends in this number. */
export function uuid(n: number): string {
  return `01970000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`;
}

export function newApproval(binding: Partial<Binding> = {}, times: { expiresAtMs?: number } = {}): NewApproval {
  return {
    binding: {
      approvalId: uuid(1),
      ref: { session: "s1", callId: uuid(0xca11) },
      principal: { tenant: "demo", agent: "demo-agent", session: "s1", user: "uma" },
      tool: "orders.refund",
      toolDigest: "d".repeat(64),
      argumentsHash: HASH,
      approverGroup: "leads",
      quorum: 1,
      ...binding,
    },
    shown: {
      toolDescription: "Refunds an order.",
      argumentsJson: '{"order":"o-1"}',
      reasons: ["A refund above 20 USD needs a lead's yes."],
      policyRevision: "e".repeat(64),
      price: [{ unit: "usd_micros", value: 2n ** 60n + 1n }],
      labels: ["private-data"],
    },
    createdAtMs: NOW_MS,
    expiresAtMs: NOW_MS + TTL_MS,
    ...times,
  };
}

import type { Binding, Need, NewApproval } from "./approval.ts";
import type { Reviewer } from "./eligibility.ts";

/** What the tests of this folder share. */

export const HASH = "a".repeat(64);
export const OTHER_HASH = "b".repeat(64);
export const NOW_MS = 1_770_000_000_000;
export const TTL_MS = 3_600_000;

export const alice = reviewer("alice", "leads");
export const bob = reviewer("bob", "leads", "finance");
export const carol = reviewer("carol", "leads");
export const mallory = reviewer("mallory", "finance");
/** Who may have given grants, as they are now. */
export const givers: readonly Reviewer[] = [alice, bob, carol];

export function reviewer(name: string, ...groups: string[]): Reviewer {
  return { name, groups, standsFor: [] };
}

/** A UUIDv7 that ends in this number. */
export function uuid(n: number): string {
  return `01970000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`;
}

export const NEED: Need = { groups: ["leads"], quorum: 1, confirm: false, escalateGroup: "", escalateAtMs: 0 };

/** Each id in a session of its own: within one session, calls that are alike are joined. */
export function newApproval(
  { need, ...binding }: Partial<Omit<Binding, "need">> & { readonly need?: Partial<Need> } = {},
  times: { expiresAtMs?: number } = {},
): NewApproval {
  const approvalId = binding.approvalId ?? uuid(1);
  const session = approvalId === uuid(1) ? "s1" : `s-${approvalId.slice(-12)}`;
  return {
    binding: {
      approvalId,
      ref: { session, callId: uuid(0xca11) },
      principal: { tenant: "demo", agent: "demo-agent", session, user: "uma" },
      tool: "orders.refund",
      toolDigest: "d".repeat(64),
      argumentsHash: HASH,
      policyRevision: "e".repeat(64),
      ...binding,
      need: { ...NEED, ...need },
    },
    shown: {
      sentence: "Pay {amount} back for order {order}.",
      toolDescription: "Refunds an order.",
      impact: "high",
      effects: ["writes", "spends"],
      argumentsJson: '{"amount":20,"order":"o-1"}',
      firstArguments: ["amount"],
      reasons: ["A refund above 20 USD needs a lead's yes."],
      rules: ["policy.csv:12"],
      price: [{ unit: "usd_micros", value: 2n ** 60n + 1n }],
      budgets: [{ name: "usd", scope: "session", subject: "s1", unit: "usd_micros", limit: 9n, available: 4n }],
      labels: ["private-data"],
      steps: [{ tool: "orders.lookup", outcome: "succeeded", timeMs: NOW_MS - 1000 }],
    },
    createdAtMs: NOW_MS,
    expiresAtMs: NOW_MS + TTL_MS,
    ...times,
  };
}

import type { Executor } from "../shared/executor.ts";
import type { RpcError } from "../shared/rpc/errors.ts";
import type { TenantBudgets } from "./budgets.ts";
import type { Command, Refusal } from "./decider.ts";
import { toRpcError } from "./refusals.ts";
import type { Author, LedgerEvent, LedgerState } from "./state.ts";

/**
 * Budgets become a revision in the tenant's stream, in parts no larger than a journal's record may be, and all of them
 * are in force with the last part. Every ledger process reads them from there, so none decides by another file.
 */

export type LedgerExecutor = Executor<LedgerState, Command, LedgerEvent, Refusal>;

export const STREAM_PREFIX = "ledger.";
const PART = 400;
const TRIES = 5;

/** Returns whether anything changed. @throws RpcError ABORTED when others put revisions in force all the while. */
export async function applyRevision(executor: LedgerExecutor, of: TenantBudgets, author: Author): Promise<boolean> {
  const { tenant, revision, units, rules } = of;
  const stream = STREAM_PREFIX + tenant;
  if (await executor.read(stream, (state) => state.rules.revision === revision)) return false;
  const parts = Math.max(1, Math.ceil(rules.length / PART));
  for (let tried = 1; ; tried++) {
    let refused: RpcError | undefined;
    for (let part = 1; part <= parts && refused === undefined; part++) {
      const some = rules.slice((part - 1) * PART, part * PART);
      const command = { kind: "revise", revision, tenant, units, rules: some, part, parts, author } as const;
      const decided = await executor.execute(stream, { ...command, nowMs: author.atMs });
      if (decided.kind === "refused") refused = toRpcError(decided.refusal, author.atMs);
    }
    if (refused === undefined) return true;
    if (tried === TRIES) throw refused;
  }
}

/**
 * What the file says at a start. A file that was in force before is not new: what an operator applied since, stays. So
 * a process that starts again with the file it had changes nothing.
 */
export async function applyFile(executor: LedgerExecutor, of: TenantBudgets, nowMs: number): Promise<boolean> {
  const known = await executor.read(STREAM_PREFIX + of.tenant, ({ rules, revisions }) => {
    if (rules.revision === "") return of.rules.length === 0;
    return revisions.some(({ revision }) => revision === of.revision);
  });
  if (known) return false;
  return await applyRevision(executor, of, { by: "budgets.yaml", reason: "The file was changed.", atMs: nowMs });
}

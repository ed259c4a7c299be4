import type { Budget, LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Client } from "../shared/rpc/types.ts";
import { AtStage, asking, askOptions } from "./asking.ts";
import { priceOf } from "./ending.ts";
import type { Decision } from "./model.ts";
import { wallMsOf } from "./runners.ts";
import { toAmount, toAncestors, toTimestamp } from "./wire.ts";
import { approvalMs, type Work } from "./work.ts";

/** Beyond all that is bounded: how long a hold outlives what it is for. */
const LEASE_SLACK_MS = 45_000;

/** A budget as it stands once a call is held against it. */
export type BudgetLeft = Pick<Budget, "name" | "scope" | "subject" | "unit" | "limit" | "available">;

/** What a call holds in the ledger until it ends. */
export class Holds {
  readonly #ledger: Client<typeof LedgerService>;
  readonly #now: () => number;

  constructor(options: { readonly ledger: Client<typeof LedgerService>; readonly now: () => number }) {
    this.#ledger = options.ledger;
    this.#now = options.now;
  }

  /** @throws RpcError when a budget has no room for it, or the ledger does not answer: then it may be held. */
  async reserve(work: Work, decision: Decision): Promise<readonly BudgetLeft[]> {
    const { call, tool, io } = work;
    const wait = decision.kind === "require_approval" ? approvalMs(decision) : 0;
    const expireTime = toTimestamp(this.#now() + wait + wallMsOf(tool, decision) + LEASE_SLACK_MS);
    const amounts = priceOf(work).map(toAmount);
    const { callId: reservationId, principal } = call;
    const of = { reservationId, principal, tool: call.tool, groups: tool.manifest.groups };
    const wantLeft = decision.kind === "require_approval";
    const request = { ...of, amounts, expireTime, ancestors: toAncestors(call), wantLeft };
    const { left } = await asking("ledger", this.#ledger.reserve(request, askOptions(io)));
    return left.map(({ name, scope, subject, unit, limit, available }) => ({
      ...{ name, scope, subject, unit, limit, available },
    }));
  }

  /** A hold that was made to last until people answer has to outlast the run. */
  async extend({ call, tool, io }: Work, decision: Decision): Promise<void> {
    const expireTime = toTimestamp(this.#now() + wallMsOf(tool, decision) + LEASE_SLACK_MS);
    const request = { tenant: call.principal.tenant, reservationId: call.callId, expireTime };
    await asking("ledger", this.#ledger.extend(request, askOptions(io)));
  }
}

/**
 * A lost run's hold may be over by now: what its second run uses is still charged to it.
 * @throws AtStage for every other refusal.
 */
export function unlessOver({ replaces }: Work, error: unknown): void {
  const isOver = error instanceof RpcError && error.reason === "RESERVATION_EXPIRED";
  if (replaces === undefined || !isOver) throw new AtStage("reserve", error);
}

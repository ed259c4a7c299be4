import type { MessageInitShape } from "@bufbuild/protobuf";
import type { BudgetSchema, LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import { Executor, type WaitOptions } from "../shared/executor.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import { parseName } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller, HandlerContext, Handlers } from "../shared/rpc/types.ts";
import { ANY, type Budget, type Budgets } from "./budgets.ts";
import { type Command, ledgerDecider } from "./decider.ts";
import { LeaseTimer } from "./leases.ts";
import { counterKey, type LedgerState } from "./state.ts";
import { parseAmounts, parseReserve, parseTime, toBudget, toRpcError } from "./wire.ts";

/** Budgets and the holds on them. Each tenant's ledger is one stream, so two calls can never share the same money. */

export type LedgerOptions = {
  readonly journal: Journal;
  readonly budgets: Budgets;
  readonly now: () => number;
  readonly log: Log;
};

export type Ledger = { readonly handlers: Handlers<typeof LedgerService> } & AsyncDisposable;

const STREAM_PREFIX = "ledger.";
/** Of a budget with many subjects, those with the least left are listed. */
export const MAX_LISTED = 1000;

/** @throws JournalUnavailable or RpcError UNAVAILABLE when the holds of an earlier run cannot be read. */
export async function startLedger({ journal, budgets, now, log }: LedgerOptions): Promise<Ledger> {
  const executor = new Executor({ journal, decider: ledgerDecider, now });

  const execute = async (tenant: string, command: Command, context: WaitOptions): Promise<void> => {
    const decided = await executor.execute(STREAM_PREFIX + tenant, command, waitOptions(context));
    if (decided.kind === "refused") throw toRpcError(decided.refusal);
  };

  const leases = new LeaseTimer({
    expire: async (tenant) => {
      await execute(tenant, { kind: "expire", nowMs: now() }, {});
      return await executor.read(STREAM_PREFIX + tenant, earliestLease);
    },
    onError: (tenant, error) => log.warn({ tenant, err: error }, "ledger.expire_failed"),
    now,
  });
  for await (const stream of journal.streams(STREAM_PREFIX)) {
    const earliest = await executor.read(stream, earliestLease);
    if (earliest !== undefined) leases.note(stream.slice(STREAM_PREFIX.length), earliest);
  }

  return {
    handlers: {
      reserve: async (request, context) => {
        servicesOnly(context.caller);
        const { id, spender, amounts, expiresAtMs } = parseReserve(request);
        const inScope = budgets.inScope(spender);
        const command = { kind: "reserve", id, budgets: inScope, amounts, expiresAtMs, nowMs: now() } as const;
        await execute(spender.tenant, command, context);
        leases.note(spender.tenant, expiresAtMs);
        const budgetNames = inScope.map(({ budget }) => budget);
        if (!request.wantLeft) return { budgets: budgetNames };
        const left = await executor.peek(STREAM_PREFIX + spender.tenant, (state) =>
          inScope.map((budget) => toBudget(budget, state.counters.get(counterKey(budget)))),
        );
        return { budgets: budgetNames, left };
      },
      commit: async (request, context) => {
        const { tenant, id } = parseReservation(request, context);
        const amounts = parseAmounts(request.amounts);
        await execute(tenant, { kind: "commit", id, amounts, nowMs: now() }, context);
        return {};
      },
      release: async (request, context) => {
        const { tenant, id } = parseReservation(request, context);
        await execute(tenant, { kind: "release", id, nowMs: now() }, context);
        return {};
      },
      extend: async (request, context) => {
        const { tenant, id } = parseReservation(request, context);
        const expiresAtMs = parseTime("expire_time", request.expireTime);
        await execute(tenant, { kind: "extend", id, expiresAtMs, nowMs: now() }, context);
        return {};
      },
      listBudgets: async (request, context) => {
        const tenant = readableTenant(request.tenant, context.caller);
        const ofTenant = budgets.ofTenant(tenant);
        // So that nothing is shown as held whose lease is over.
        await execute(tenant, { kind: "expire", nowMs: now() }, context);
        const listed = await executor.read(
          STREAM_PREFIX + tenant,
          (state) => list(ofTenant, state),
          waitOptions(context),
        );
        return { budgets: listed };
      },
    },
    [Symbol.asyncDispose]: async () => {
      await leases[Symbol.asyncDispose]();
      await executor[Symbol.asyncDispose]();
    },
  };
}

function earliestLease({ leases }: LedgerState): number | undefined {
  return leases[0]?.expiresAtMs;
}

function waitOptions({ signal, deadlineMs }: Pick<HandlerContext, "signal" | "deadlineMs"> | WaitOptions): WaitOptions {
  return { ...(signal && { signal }), ...(deadlineMs !== undefined && { deadlineMs }) };
}

type Reservation = { readonly tenant: string; readonly id: string };

/** @throws RpcError PERMISSION_DENIED or INVALID_ARGUMENT. */
function parseReservation(
  request: { readonly tenant: string; readonly reservationId: string },
  { caller }: HandlerContext,
): Reservation {
  servicesOnly(caller);
  return { tenant: parseName("tenant", request.tenant), id: parseName("reservation_id", request.reservationId) };
}

/** Holds are the broker's to make and end: an agent that could release one would spend for nothing. */
function servicesOnly(caller: Caller): void {
  if (caller.kind === "service") return;
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "SERVICES_ONLY",
    message: "Only Interlock's own services may reserve and settle; call a tool through the broker instead.",
  });
}

/** A person reads their own tenant; of another they learn nothing, not even that it exists. */
function readableTenant(asked: string, caller: Caller): string {
  switch (caller.kind) {
    case "service":
      return parseName("tenant", asked);
    case "agent":
      throw new RpcError({
        code: "PERMISSION_DENIED",
        reason: "PEOPLE_ONLY",
        message: "Only operators and reviewers may list budgets; use the key of one.",
      });
    case "person":
      if (asked === "" || asked === caller.tenant) return caller.tenant;
      throw new RpcError({
        code: "NOT_FOUND",
        reason: "TENANT_NOT_FOUND",
        field: "tenant",
        message: "There is no such tenant for you; leave it empty for your own.",
      });
  }
}

type Line = MessageInitShape<typeof BudgetSchema>;

/** One line per budget and subject seen; of a budget for each subject that nobody used yet, one for `*`. */
function list(budgets: readonly Budget[], state: LedgerState): Line[] {
  const seen = Map.groupBy(state.counters.values(), ({ budget, scope, unit }) => `${budget} ${scope} ${unit}`);
  return budgets.flatMap(({ name: budget, scope, subject, unit, limit }) => {
    const line = { budget, scope, subject, unit, limit };
    if (subject !== ANY) return [toBudget(line, state.counters.get(counterKey(line)))];
    const counters = seen.get(`${budget} ${scope} ${unit}`) ?? [];
    if (counters.length === 0) return [toBudget(line, undefined)];
    return counters
      .sort((a, b) => compare(b.held + b.spent, a.held + a.spent))
      .slice(0, MAX_LISTED)
      .map((counter) => toBudget({ ...line, subject: counter.subject }, counter));
  });
}

function compare(a: bigint, b: bigint): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

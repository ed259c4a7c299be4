import type { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import { Executor, type WaitOptions } from "../shared/executor.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import { parseName } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller, HandlerContext, Handlers } from "../shared/rpc/types.ts";
import { FileProblems } from "../shared/yaml-file.ts";
import { type Budgets, parseBudgets } from "./budgets.ts";
import { type Command, ledgerDecider } from "./decider.ts";
import { LeaseTimer } from "./leases.ts";
import { listBudgets, listFrozen, listHeld, listRevisions } from "./listing.ts";
import type { LedgerMetrics } from "./metrics.ts";
import type { Request } from "./orders.ts";
import { toRpcError } from "./refusals.ts";
import { applyFile, applyRevision, type LedgerExecutor, STREAM_PREFIX } from "./revisions.ts";
import type { LedgerEvent, LedgerState } from "./state.ts";
import { statementLines } from "./statement-wire.ts";
import { watchSignals } from "./watch.ts";
import { parseAmounts, parseKey, parseReason, parseReserve, parseTime } from "./wire.ts";

/** Budgets and the holds on them. Each tenant's ledger is one stream, so two calls can never share the same money. */

export type LedgerOptions = {
  readonly journal: Journal;
  readonly budgets: Budgets;
  readonly now: () => number;
  readonly log: Log;
  readonly metrics?: LedgerMetrics;
};

export type Ledger = { readonly handlers: Handlers<typeof LedgerService> } & AsyncDisposable;

/** Of one append: what JetStream carries, and what 256 callers that wait for each other's fsync bring along. */
const MAX_BATCH = 512;
/** A start reads at most so many events besides a snapshot: about a second's work. */
const SNAPSHOT_EVERY = 250_000;

/** @throws JournalUnavailable or RpcError UNAVAILABLE when the holds of an earlier run cannot be read. */
export async function startLedger(options: LedgerOptions): Promise<Ledger> {
  const desk = new Desk(options);
  await desk.start(options.budgets);
  return { handlers: handlersOf(desk, options.now), [Symbol.asyncDispose]: () => desk[Symbol.asyncDispose]() };
}

function handlersOf(desk: Desk, now: () => number): Handlers<typeof LedgerService> {
  return {
    reserve: async (request, context) => {
      servicesOnly(context.caller);
      const { tenant, ...of } = parseReserve(request);
      const budgets = await desk.reserve(tenant, { kind: "reserve", ...of, nowMs: now() }, context);
      if (!request.wantLeft) return { budgets };
      return { budgets, left: await desk.read(tenant, context, (state) => listHeld(state, of.id, now())) };
    },
    commit: async (request, context) => {
      const { tenant, id } = parseReservation(request, context);
      const { late, amounts } = request;
      await desk.execute(tenant, { kind: "commit", id, amounts: parseAmounts(amounts), late, nowMs: now() }, context);
      return {};
    },
    release: async (request, context) => {
      const { tenant, id } = parseReservation(request, context);
      await desk.execute(tenant, { kind: "release", id, nowMs: now() }, context);
      return {};
    },
    extend: async (request, context) => {
      const { tenant, id } = parseReservation(request, context);
      const expiresAtMs = parseTime("expire_time", request.expireTime);
      await desk.execute(tenant, { kind: "extend", id, expiresAtMs, nowMs: now() }, context);
      return {};
    },
    listBudgets: async (request, context) => {
      const tenant = readableTenant(request.tenant, context.caller);
      // So that nothing is shown as held whose lease is over.
      await desk.execute(tenant, { kind: "expire", nowMs: now() }, context);
      return await desk.read(tenant, context, (state) => ({
        budgets: listBudgets(state, now()),
        revisions: listRevisions(state),
        frozen: listFrozen(state),
      }));
    },
    getStatement: async (request, context) => {
      const tenant = readableTenant(request.tenant, context.caller);
      return { lines: await desk.read(tenant, context, ({ days }) => statementLines(days, request)) };
    },
    watchSignals: (request, context) =>
      desk.watch(readableTenant(request.tenant, context.caller), request, context.signal),
    ...ordersOf(desk, now),
  };
}

type Orders = "applyBudgets" | "raiseBudget" | "grantBudget" | "freezeBudget" | "thawBudget";

/** What operators change. */
function ordersOf(desk: Desk, now: () => number): Pick<Handlers<typeof LedgerService>, Orders> {
  const order = async (of: { key: string; reason: string }, request: Request, context: HandlerContext) => {
    const { tenant, name } = parseOperator(context.caller);
    const key = parseKey(of.key);
    const author = { by: name, reason: parseReason(of.reason), atMs: now() };
    await desk.execute(tenant, { kind: "order", key, request, author, nowMs: now() }, context);
    return {};
  };
  const subjectOf = (subject: string) => (subject === "" ? undefined : subject);
  return {
    raiseBudget: ({ budget, subject, limit, ...of }, context) =>
      order(of, { kind: "raise", budget, subject: subjectOf(subject), limit }, context),
    grantBudget: ({ budget, subject, value, ...of }, context) =>
      order(of, { kind: "grant", budget, subject: subjectOf(subject), value }, context),
    freezeBudget: ({ selector, ...of }, context) => order(of, { kind: "freeze", selector }, context),
    thawBudget: ({ selector, ...of }, context) => order(of, { kind: "thaw", selector }, context),
    applyBudgets: async ({ yaml, reason, dryRun }, { caller }) => {
      const { tenant, name } = parseOperator(caller);
      const author = { by: name, reason: parseReason(reason), atMs: now() };
      const budgets = parseFile(yaml);
      const other = budgets.tenants.find((one) => one !== tenant);
      if (other !== undefined) throw fileInvalid(`It has budgets of tenant ${other}; send those of ${tenant} only.`);
      const of = budgets.ofTenant(tenant);
      const changed = !dryRun && (await applyRevision(desk.executor, of, author));
      return { revision: of.revision, changed };
    },
  };
}

/** What lives as long as the service: the executor and the timer. */
class Desk implements AsyncDisposable {
  readonly executor: LedgerExecutor;
  readonly #options: LedgerOptions;
  readonly #leases: LeaseTimer;
  readonly #stopping = new AbortController();

  constructor(options: LedgerOptions) {
    const { journal, now, log } = options;
    this.#options = options;
    this.executor = new Executor({
      journal,
      decider: ledgerDecider,
      now,
      maxBatch: MAX_BATCH,
      snapshotEvery: SNAPSHOT_EVERY,
    });
    this.#leases = new LeaseTimer({
      expire: async (tenant) => {
        await this.execute(tenant, { kind: "expire", nowMs: now() }, {});
        return await this.executor.read(STREAM_PREFIX + tenant, earliestLease);
      },
      onError: (tenant, error) => log.warn({ tenant, err: error }, "ledger.expire_failed"),
      now,
    });
  }

  async start(budgets: Budgets): Promise<void> {
    const { journal, now, log, metrics } = this.#options;
    const tenants = new Set(budgets.tenants);
    for await (const stream of journal.streams(STREAM_PREFIX)) tenants.add(stream.slice(STREAM_PREFIX.length));
    for (const tenant of tenants) {
      const of = budgets.ofTenant(tenant);
      const changed = await applyFile(this.executor, of, now());
      if (changed) log.info({ tenant, revision: of.revision, budgets: of.rules.length }, "ledger.revised");
      const earliest = await this.executor.read(STREAM_PREFIX + tenant, earliestLease);
      if (earliest !== undefined) this.#leases.note(tenant, earliest);
    }
    metrics?.observe(async (look) => {
      for (const tenant of tenants) await this.executor.peek(STREAM_PREFIX + tenant, (state) => look(tenant, state));
    }, now);
  }

  async execute(tenant: string, command: Command, context: WaitOptions): Promise<readonly LedgerEvent[]> {
    const { metrics } = this.#options;
    const startedMs = performance.now();
    const decided = await this.executor.execute(STREAM_PREFIX + tenant, command, waitOptions(context));
    metrics?.record(tenant, command, decided, performance.now() - startedMs);
    if (decided.kind === "refused") throw toRpcError(decided.refusal, command.nowMs);
    return decided.events;
  }

  /** The names of the budgets that it holds, whether it was made now or before. */
  async reserve(
    tenant: string,
    command: Extract<Command, { kind: "reserve" }>,
    context: WaitOptions,
  ): Promise<string[]> {
    const events = await this.execute(tenant, command, context);
    this.#leases.note(tenant, command.expiresAtMs);
    const made = events.findLast((event) => event.kind === "reserved");
    const keys =
      made?.accounts ??
      (await this.executor.peek(
        STREAM_PREFIX + tenant,
        ({ holds }) => holds.get(command.id)?.accounts.map(({ key }) => key) ?? [],
        waitOptions(context),
      ));
    return keys.map((key) => key.slice(0, key.indexOf(" ")));
  }

  read<T>(tenant: string, context: WaitOptions, look: (state: LedgerState) => T): Promise<T> {
    return this.executor.read(STREAM_PREFIX + tenant, look, waitOptions(context));
  }

  watch(
    tenant: string,
    from: { readonly afterPosition: bigint; readonly onlyNew: boolean },
    caller: AbortSignal,
  ): ReturnType<typeof watchSignals> {
    const { journal, now } = this.#options;
    const stopping = this.#stopping.signal;
    return watchSignals({ journal, stream: STREAM_PREFIX + tenant, ...from, now, caller, stopping });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#leases[Symbol.asyncDispose]();
    await this.executor[Symbol.asyncDispose]();
  }
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
        message: "Only operators and reviewers may read budgets; use the key of one.",
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

function parseOperator(caller: Caller): { readonly tenant: string; readonly name: string } {
  if (caller.kind === "person" && caller.roles.includes("operator")) return caller;
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "OPERATOR_ONLY",
    message: "Only operators change budgets; use an operator's key.",
  });
}

/** @throws RpcError INVALID_ARGUMENT with every problem of the file. */
function parseFile(yaml: string): Budgets {
  try {
    return parseBudgets("budgets.yaml", yaml);
  } catch (error) {
    if (error instanceof FileProblems) throw fileInvalid(error.message);
    throw error;
  }
}

function fileInvalid(message: string): RpcError {
  return new RpcError({ code: "INVALID_ARGUMENT", reason: "BUDGETS_INVALID", field: "yaml", message });
}

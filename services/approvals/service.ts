import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { Executor, type WaitOptions } from "../shared/executor.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import { parseName } from "../shared/names.ts";
import type { HandlerContext, Handlers } from "../shared/rpc/types.ts";
import { requireReader, requireReviewer, requireService } from "./access.ts";
import type { Event } from "./approval.ts";
import { type Command, decider, type Refusal } from "./decider.ts";
import { Expiry } from "./expiry.ts";
import { listApprovals } from "./list.ts";
import { toRpcError } from "./refusals.ts";
import { earliestExpiry, findApproval, type State } from "./state.ts";
import { watchResolutions } from "./watch.ts";
import {
  type ApprovalInit,
  approveSchema,
  cancelSchema,
  getSchema,
  parse,
  parseApproval,
  parsePosition,
  parseState,
  rejectSchema,
  toApproval,
} from "./wire.ts";

/** Approvals: keeps what people are asked and what they answer, one stream a tenant. It tells nobody to run anything. */

export type ApprovalsOptions = { readonly journal: Journal; readonly now: () => number; readonly log: Log };

export type Approvals = { readonly handlers: Handlers<typeof ApprovalsService> } & AsyncDisposable;

const PREFIX = "approval.";

/** @throws RpcError UNAVAILABLE when the journal does not answer: what is due could not be ended. */
export async function startApprovals(options: ApprovalsOptions): Promise<Approvals> {
  const desk = new Desk(options);
  await desk.start();
  return { handlers: handlersOf(desk, options.now), [Symbol.asyncDispose]: () => desk[Symbol.asyncDispose]() };
}

function handlersOf(desk: Desk, now: () => number): Handlers<typeof ApprovalsService> {
  return {
    requestApproval: async (request, context) => {
      requireService(context.caller);
      const approval = parseApproval(request.approval, now());
      const { tenant } = approval.binding.principal;
      const { approvalId } = approval.binding;
      return desk.answer(tenant, { kind: "request", approval, nowMs: now() }, approvalId, context);
    },
    cancelApproval: async (request, context) => {
      const by = requireService(context.caller);
      const { approvalId, reason } = parse(cancelSchema, request);
      const tenant = parseName("tenant", request.tenant);
      return desk.answer(tenant, { kind: "cancel", approvalId, by, reason, nowMs: now() }, approvalId, context);
    },
    async *watchResolutions({ after }, context) {
      requireService(context.caller);
      yield* desk.watch(parsePosition(after), context.signal);
    },
    getApproval: async (request, context) => {
      const tenant = requireReader(context.caller, request.tenant);
      const { approvalId } = parse(getSchema, request);
      return desk.get(tenant, approvalId, context);
    },
    listApprovals: async (request, context) => {
      const tenant = requireReader(context.caller, request.tenant);
      const wanted = parseState(request.state);
      const approvals = await desk.read(tenant, (state) => listApprovals(state, wanted), context);
      return { approvals: approvals.map(toApproval) };
    },
    approve: async (request, context) => {
      const { tenant, ...reviewer } = requireReviewer(context.caller, request.tenant);
      const { approvalId, argumentsHash, comment } = parse(approveSchema, request);
      const vote = { kind: "approve", approvalId, reviewer, argumentsHash, comment, nowMs: now() } as const;
      return desk.answer(tenant, vote, approvalId, context);
    },
    reject: async (request, context) => {
      const { tenant, ...reviewer } = requireReviewer(context.caller, request.tenant);
      const { approvalId, comment } = parse(rejectSchema, request);
      return desk.answer(tenant, { kind: "reject", approvalId, reviewer, comment, nowMs: now() }, approvalId, context);
    },
  };
}

/** What lives as long as the service: the executor and the timer. */
class Desk implements AsyncDisposable {
  readonly #options: ApprovalsOptions;
  readonly #executor: Executor<State, Command, Event, Refusal>;
  readonly #expiry: Expiry;
  readonly #stopping = new AbortController();

  constructor(options: ApprovalsOptions) {
    const { journal, now, log } = options;
    this.#options = options;
    this.#executor = new Executor({ journal, decider, now });
    this.#expiry = new Expiry({ streams: () => journal.streams(PREFIX), expire: (s) => this.#expire(s), now, log });
  }

  start(): Promise<void> {
    return this.#expiry.start();
  }

  /** Runs a command about one approval, and answers with what has become of it. */
  async answer(
    tenant: string,
    command: Command,
    approvalId: string,
    context: HandlerContext,
  ): Promise<{ approval: ApprovalInit }> {
    const stream = PREFIX + tenant;
    const decided = await this.#executor.execute(stream, command, waitOf(context));
    if (decided.kind === "refused") {
      // The answer came after the time was over but before the timer: the end it met goes on record with it.
      if (decided.refusal.kind === "overdue") await this.#expire(stream);
      throw toRpcError(decided.refusal);
    }
    for (const event of decided.events) this.#note(stream, event);
    return this.get(tenant, approvalId, context);
  }

  async get(tenant: string, approvalId: string, context: HandlerContext): Promise<{ approval: ApprovalInit }> {
    const approval = await this.read(tenant, (state) => findApproval(state, approvalId), context);
    if (approval === undefined) throw toRpcError({ kind: "not found", approvalId });
    return { approval: toApproval(approval) };
  }

  read<T>(tenant: string, look: (state: State) => T, context: HandlerContext): Promise<T> {
    return this.#executor.read(PREFIX + tenant, look, waitOf(context));
  }

  watch(after: number, caller: AbortSignal): ReturnType<typeof watchResolutions> {
    const { journal } = this.#options;
    return watchResolutions(after, { journal, prefix: PREFIX, caller, stopping: this.#stopping.signal });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort();
    await this.#expiry[Symbol.asyncDispose]();
    await this.#executor[Symbol.asyncDispose]();
  }

  async #expire(stream: string): Promise<number | undefined> {
    for (;;) {
      const nowMs = this.#options.now();
      const earliest = await this.#executor.read(stream, earliestExpiry);
      if (earliest === undefined || earliest > nowMs) return earliest;
      const decided = await this.#executor.execute(stream, { kind: "expire", nowMs });
      if (decided.kind === "accepted") for (const event of decided.events) this.#note(stream, event);
    }
  }

  #note(stream: string, event: Event): void {
    switch (event.kind) {
      case "requested": {
        const { approvalId, tool, approverGroup, quorum } = event.approval.binding;
        this.#expiry.note(stream, event.approval.expiresAtMs);
        this.#options.log.info({ stream, approvalId, tool, approverGroup, quorum }, "approval.requested");
        return;
      }
      case "voted": {
        const { reviewer, approve } = event.vote;
        this.#options.log.info({ stream, approvalId: event.approvalId, reviewer, approve }, "approval.voted");
        return;
      }
      case "resolved": {
        const { end, by } = event.ending;
        this.#options.log.info({ stream, approvalId: event.binding.approvalId, end, by }, "approval.resolved");
        return;
      }
    }
  }
}

function waitOf({ signal, deadlineMs }: HandlerContext): WaitOptions {
  return deadlineMs === undefined ? { signal } : { signal, deadlineMs };
}

import { RpcError } from "../shared/rpc/errors.ts";
import type { Catalog, Tool } from "./catalog.ts";
import type { LiveCall } from "./live.ts";
import type { Ancestor, Call, CallView, Principal } from "./model.ts";
import { streamOf } from "./model.ts";
import { type Asked, ancestorsOf, waitsForPeople } from "./nested.ts";
import type { Pipeline, Sessions } from "./pipeline.ts";
import type { Place, Records } from "./records.ts";
import type { Recovery } from "./recovery.ts";
import { resolveCall, type ToolRequest } from "./request.ts";
import { toRefusal, toRpcError } from "./wire.ts";
import type { CallIo, Work } from "./work.ts";

export type Begun = { readonly call: Call; readonly tool: Tool };

export type CallsOptions = {
  readonly catalog: Catalog;
  readonly sessions: Sessions;
  readonly pipeline: Pipeline;
  readonly records: Records;
  readonly recovery: Recovery;
  readonly newId: () => string;
  readonly now: () => number;
};

/** Calls as the RPCs offer them: what `Execute` and `Session` have in common. */
export class Calls {
  readonly #options: CallsOptions;

  constructor(options: CallsOptions) {
    this.#options = options;
  }

  /** Finds the tool and checks the arguments. @throws RpcError, with the call's id, that is on the session's record too. */
  resolve(principal: Principal, request: ToolRequest, ancestors?: readonly Ancestor[]): Begun {
    const { catalog, newId, now } = this.#options;
    const callId = newId();
    try {
      return resolveCall(request, {
        ...{ principal, catalog, callId, nowMs: now() },
        ...(ancestors === undefined ? {} : { ancestors }),
      });
    } catch (thrown) {
      const error = RpcError.from(thrown);
      this.#recordUnresolved(principal, request, callId, error, ancestors);
      throw withCall(error, principal.session, callId);
    }
  }

  /**
   * Runs a call to its end, or to where people are asked and `waitMs` are over.
   * @throws RpcError for what was refused, naming stage and call id.
   */
  async execute(begun: Begun, io: CallIo, waitMs: number, watch?: (live: LiveCall) => void): Promise<CallView> {
    const { call, tool } = begun;
    const standing = await this.#options.pipeline.start(call, tool, io, watch);
    switch (standing.kind) {
      case "ended":
        return orThrow(standing.view);
      case "parked":
        return waitMs > 0 ? await this.#await(call, call.callId, io, waitMs) : standing.view;
      case "following":
        return await this.#await(call, standing.callId === "" ? call.callId : standing.callId, io, waitMs);
    }
  }

  /** A call that the program of `parent` makes. @throws RpcError for what was refused. */
  async perform(parent: Work, asked: Asked, signal: AbortSignal): Promise<CallView> {
    const { principal } = parent.call;
    const begun = this.resolve(principal, { ...asked, idempotencyKey: "" }, ancestorsOf(parent.call));
    const waits = waitsForPeople(parent.tool);
    const { deadlineMs, traceParent } = parent.io;
    const io: CallIo = {
      signal,
      ...(deadlineMs === undefined ? {} : { deadlineMs }),
      ...(traceParent === undefined ? {} : { traceParent }),
      ...(waits ? {} : { asksNobody: true }),
    };
    const waitMs = waits ? parent.tool.manifest.limits.wall_ms : 0;
    const place = placeOf(principal, begun.call.callId);
    try {
      const view = await this.execute(begun, io, waitMs);
      if (view.progress.kind === "ended") return view;
    } catch (error) {
      // Nobody is asked any longer for a program that has ended.
      if (signal.aborted) await this.cancel(place, "Its program has ended.").catch(() => {}); // it may not have begun
      throw error;
    }
    return await this.cancel(place, "Its program has waited as long as it may.");
  }

  /** The call that people were asked about, once it has ended. */
  ended({ call }: CallView, signal: AbortSignal): Promise<CallView> {
    return this.#options.records.ended(placeOf(call.principal, call.callId), signal);
  }

  /** Ends a call wherever it is: one that waits for people here, one that runs by its broker. */
  async cancel(place: Place, reason: string): Promise<CallView> {
    const { records, recovery, sessions, pipeline } = this.#options;
    const view = await records.view(place);
    pipeline.live.get(place.callId)?.live.cancel(reason);
    switch (view.progress.kind) {
      case "pending_approval":
        await recovery.withdraw(place, reason);
        break;
      case "running":
        await sessions.execute(streamOf(place), { kind: "cancel", callId: place.callId, reason });
        break;
      case "ended":
        break;
    }
    return await records.view(place);
  }

  async withdraw(principal: Principal, callId: string, reason: string): Promise<void> {
    await this.cancel(placeOf(principal, callId), reason);
  }

  /** A call that somebody else carries: waits for its end, and for people no longer than the caller does. */
  async #await(call: Call, callId: string, io: CallIo, waitMs: number): Promise<CallView> {
    const { records } = this.#options;
    const place = placeOf(call.principal, callId);
    const first = await records.view(place, io.signal);
    if (first.progress.kind === "ended") return orThrow(first);
    const patience = first.progress.kind === "pending_approval" ? waitMs : Number.POSITIVE_INFINITY;
    const untilMs = Math.min(Date.now() + patience, (io.deadlineMs ?? Number.POSITIVE_INFINITY) - ANSWER_MS);
    if (untilMs <= Date.now()) return first;
    const leftMs = Math.min(Math.max(1, Math.ceil(untilMs - Date.now())), MAX_TIMER_MS);
    const enough = AbortSignal.timeout(leftMs);
    return orThrow(await this.#endedOrNow(place, io.signal, enough));
  }

  async #endedOrNow(place: Place, signal: AbortSignal, enough: AbortSignal): Promise<CallView> {
    const { records } = this.#options;
    try {
      return await records.ended(place, AbortSignal.any([signal, enough]));
    } catch (error) {
      if (!enough.aborted || signal.aborted) throw error;
      return await records.view(place, signal);
    }
  }

  /** In the background: nothing was held for it, and its caller need not wait for the record. */
  #recordUnresolved(
    principal: Principal,
    request: ToolRequest,
    callId: string,
    error: RpcError,
    ancestors: readonly Ancestor[] | undefined,
  ): void {
    const { sessions, now } = this.#options;
    const call = {
      ...{ callId, principal, toolDigest: "", argumentsHash: "", idempotencyKey: "", createdMs: now() },
      tool: request.tool.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 128),
      ...(ancestors === undefined ? {} : { ancestors }),
    };
    const outcome = { kind: "refused", refusal: toRefusal("resolve", error) } as const;
    const ended = { call, outcome, decision: undefined, charged: [], receipt: undefined, endMs: now() };
    const end = { kind: "end", ...ended, attempts: [], addLabels: [] } as const;
    sessions.execute(streamOf(principal), end).catch(() => {}); // the journal's own state says why
  }
}

/** What Node's timers can wait. */
const MAX_TIMER_MS = 2 ** 31 - 1;
/** Left of a caller's deadline to bring the answer back. */
const ANSWER_MS = 150;

function placeOf(principal: Principal, callId: string): Place {
  const { tenant, session, agent } = principal;
  return { tenant, session, callId, agent };
}

/** A refusal is an error of the RPC; every other end is an answer. */
function orThrow(view: CallView): CallView {
  const { call, progress } = view;
  if (progress.kind !== "ended" || progress.outcome.kind !== "refused") return view;
  throw withCall(toRpcError(progress.outcome.refusal), call.principal.session, call.callId);
}

function withCall(error: RpcError, session: string, callId: string): RpcError {
  return new RpcError({
    code: error.code,
    reason: error.reason,
    message: error.message,
    ...(error.field === undefined ? {} : { field: error.field }),
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs }),
    metadata: { ...error.metadata, session, call_id: callId },
    cause: error.cause,
  });
}

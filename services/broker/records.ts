import type { CallRef } from "../../proto/interlock/v1/types_pb.ts";
import type { Journal, Recorded } from "../shared/journal/journal.ts";
import { NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller } from "../shared/rpc/types.ts";
import type { Waiters } from "./live.ts";
import { type CallView, type Principal, streamOf, summaryOf } from "./model.ts";
import type { Sessions } from "./pipeline.ts";
import type { Entry, SessionEvent } from "./session.ts";

/** Reads calls back from their session's record. */
export class Records {
  readonly #sessions: Sessions;
  readonly #journal: Journal;
  readonly #waiters: Waiters;

  constructor(options: { sessions: Sessions; journal: Journal; waiters: Waiters }) {
    this.#sessions = options.sessions;
    this.#journal = options.journal;
    this.#waiters = options.waiters;
  }

  /** The call as it stands. @throws RpcError NOT_FOUND, the same for what is not there and for what is another's. */
  async view(place: Place, signal?: AbortSignal): Promise<CallView> {
    const { entry } = await this.#find(place, signal);
    return viewOfEvent(await this.event(place, entry.seq));
  }

  /** The call once it has ended. */
  async ended(place: Place, signal: AbortSignal): Promise<CallView> {
    const enough = new AbortController();
    try {
      for (;;) {
        const changed = this.#waiters.next(place.callId, AbortSignal.any([signal, enough.signal]));
        changed.catch(() => {}); // awaited below, or not at all
        const view = await this.view(place, signal);
        if (view.progress.kind === "ended") return view;
        await changed;
      }
    } finally {
      enough.abort(); // no waiter stays behind
    }
  }

  /** One record of a session. */
  async event(place: Pick<Place, "tenant" | "session">, seq: number): Promise<SessionEvent> {
    for await (const record of this.#journal.read(streamOf(place), seq - 1)) return eventOf(record);
    throw new Error(`journal: ${streamOf(place)} has no record ${seq}; run interlock audit verify`);
  }

  async #find(place: Place, signal?: AbortSignal): Promise<{ entry: Entry }> {
    const found = await this.#sessions.read(
      streamOf(place),
      (state) => ({ agent: state.agent, entry: state.calls.get(place.callId) }),
      signal === undefined ? {} : { signal },
    );
    const theirs = place.agent !== undefined && found.agent !== place.agent;
    if (found.entry === undefined || theirs) throw callNotFound();
    return { entry: found.entry };
  }
}

/** Where a call's record is, and which agent may see it; an operator sees every agent's. */
export type Place = Pick<Principal, "tenant" | "session"> & {
  readonly callId: string;
  readonly agent: string | undefined;
};

/** @throws RpcError when the caller may see no calls, or names none. */
export function parsePlace(ref: CallRef | undefined, caller: Caller): Place {
  const session = ref?.session ?? "";
  const callId = ref?.callId ?? "";
  const missing = session === "" ? "ref.session" : callId === "" ? "ref.call_id" : undefined;
  if (missing !== undefined) {
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "FIELD_MISSING",
      field: missing,
      message: `Set ${missing}: it is missing.`,
    });
  }
  if (!NAME.test(session) || !NAME.test(callId)) throw callNotFound();
  switch (caller.kind) {
    case "agent":
      return { tenant: caller.tenant, session, callId, agent: caller.agent };
    case "person":
      return { tenant: caller.tenant, session, callId, agent: undefined };
    case "service":
      throw new RpcError({
        code: "PERMISSION_DENIED",
        reason: "AGENTS_ONLY",
        message: "Calls are shown to agents and operators.",
      });
  }
}

export function eventOf(record: Pick<Recorded, "body">): SessionEvent {
  return JSON.parse(Buffer.from(record.body).toString("utf8")) as SessionEvent;
}

function viewOfEvent(event: SessionEvent): CallView {
  switch (event.kind) {
    case "parked":
      return { call: summaryOf(event.call), decision: event.decision, progress: { kind: "pending_approval" } };
    case "admitted":
      return { call: summaryOf(event.call), decision: event.decision, progress: { kind: "running" } };
    case "ended": {
      const { outcome, charged, receipt, endMs, warnings } = event;
      return {
        call: event.call,
        decision: event.decision,
        progress: { kind: "ended", outcome, charged, receipt, endMs, ...(warnings && { warnings }) },
      };
    }
    case "cancelling":
      throw new Error("a request to cancel is no state of a call");
  }
}

function callNotFound(): RpcError {
  return new RpcError({
    code: "NOT_FOUND",
    reason: "CALL_NOT_FOUND",
    field: "ref.call_id",
    message: "There is no such call in this session for you; check session and call id.",
  });
}

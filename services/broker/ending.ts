import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import type { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import type { Decided } from "../shared/decider.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Client } from "../shared/rpc/types.ts";
import type { Signer } from "../shared/signing.ts";
import type { CallCommand, CallEvent, Undo } from "./call.ts";
import { hasFailed, resultKeyOf } from "./guard/signature.ts";
import type { Waiters } from "./live.ts";
import { type Amount, type Outcome, streamOf, summaryOf } from "./model.ts";
import type { Outbox } from "./outbox.ts";
import type { Sessions } from "./pipeline.ts";
import { actualOf, estimateOf } from "./price.ts";
import type { SessionCommand, SessionEvent, SessionRefusal } from "./session.ts";
import { receiptBytes, toAmount, toSignedText } from "./wire.ts";
import type { Work } from "./work.ts";

export type EndingOptions = {
  readonly sessions: Sessions;
  readonly ledger: Client<typeof LedgerService>;
  readonly approvals: Client<typeof ApprovalsService>;
  readonly signer: Signer;
  readonly outbox: Outbox;
  readonly waiters: Waiters;
  readonly now: () => number;
  readonly log: Log;
};

/** How long one attempt may take to end a hold or to withdraw a question. */
const ASK_MS = 2_500;
/** A refusal is answered even where it cannot be recorded; nothing has run. */
const RECORD_REFUSAL_MS = 1_000;
/** Left of a caller's deadline to bring the answer back. */
const ANSWER_MS = 50;

/** The end of a call: its receipt and its record, and what was held for it. */
export class Ending {
  readonly #options: EndingOptions;

  constructor(options: EndingOptions) {
    this.#options = options;
  }

  /**
   * Records the end and ends what is held. What was used is charged at once, for the call has run; what was not is given
   * back once the end stands: until then another broker may have come to run the call.
   */
  async end(work: Work, command: Extract<CallCommand, { kind: "end" }>): Promise<CallEvent> {
    const { call, tool } = work;
    const { sessions, signer, outbox, waiters, now, log } = this.#options;
    const { outcome, undo, decision } = command;
    const charged = undo.hold === "charge" ? chargeOf(work, outcome) : [];
    const ended = { outcome, charged, endMs: now(), ...warningsOf(work) };
    const view = { call: summaryOf(call), decision };
    const receipt = toSignedText(await signer.sign("receipt", receiptBytes(view, ended)));
    work.ended = { ...view, progress: { kind: "ended", ...ended, receipt } };
    const ran = undo.hold === "charge";
    const attempts = work.replaces === undefined ? [work.attempt] : [work.attempt, work.replaces];
    const addLabels = ran ? tool.manifest.labels : [];
    const record: SessionCommand = {
      kind: "end",
      ...view,
      ...ended,
      ...resultOf(outcome),
      receipt,
      attempts,
      addLabels,
    };
    const stream = streamOf(call.principal);
    if (ran) this.undo(work, undo, charged);
    try {
      const decided = await sessions.execute(stream, record, ran ? {} : { deadlineMs: recordBy(work) });
      if (isAnothers(decided)) return { kind: "taken" };
      if (!ran) this.undo(work, undo, charged);
    } catch (error) {
      outbox.send(`record the end of ${call.callId}`, async () => {
        const decided = await sessions.execute(stream, record);
        waiters.notify(call.callId);
        if (!ran && !isAnothers(decided)) this.undo(work, undo, charged);
      });
      log.warn({ err: error, callId: call.callId }, "call.end.unrecorded");
      if (ran) throw unrecorded(error);
    }
    return { kind: "ended", outcome };
  }

  /** In the background, until it is done: what is held here is on a lease, and what is charged is in the journal. */
  undo(work: Work, undo: Undo, charged: readonly Amount[]): void {
    const { ledger, approvals, outbox } = this.#options;
    const { callId, principal } = work.call;
    const { tenant } = principal;
    const options = () => ({ deadlineMs: Date.now() + ASK_MS });
    switch (undo.hold) {
      case "charge": {
        const amounts = charged.map(toAmount);
        outbox.send(`charge ${callId}`, () =>
          ledger.commit({ tenant, reservationId: callId, amounts, late: true }, options()),
        );
        break;
      }
      case "release":
        outbox.send(`release ${callId}`, () => ledger.release({ tenant, reservationId: callId }, options()));
        break;
      case "none":
        break;
    }
    if (undo.withdrawApproval) {
      const request = { tenant, approvalId: callId, reason: "The call it was for has ended." };
      outbox.send(`withdraw ${callId}`, () => approvals.cancelApproval(request, options()));
    }
  }
}

/** What was held for the call, or would be. */
export function priceOf({ price, tool, call }: Pick<Work, "price" | "tool" | "call">): readonly Amount[] {
  return price ?? estimateOf(tool, call.argumentsJson);
}

function resultOf(outcome: Outcome): { readonly result?: { readonly key: string; readonly failed: boolean } } {
  const result = "result" in outcome ? outcome.result : undefined;
  return result === undefined ? {} : { result: { key: resultKeyOf(result), failed: hasFailed(result) } };
}

/** Said once, with the call that was let through in spite of it. */
function warningsOf({ loop }: Work): { readonly warnings?: readonly string[] } {
  return loop.level === "warned" || loop.level === "ask" ? { warnings: [loop.message] } : {};
}

/** A run whose end is lost costs what was expected. */
function chargeOf(work: Work, outcome: Outcome): Amount[] {
  const result = "result" in outcome ? outcome.result : undefined;
  return actualOf(work.tool, work.call.argumentsJson, priceOf(work), result);
}

/** Before the caller's own deadline, so that the caller hears why. */
function recordBy({ io }: Work): number {
  return Math.min(Date.now() + RECORD_REFUSAL_MS, (io.deadlineMs ?? Number.POSITIVE_INFINITY) - ANSWER_MS);
}

/** Somebody else has ended the call, or runs it: theirs is what counts. */
function isAnothers(decided: Decided<SessionEvent, SessionRefusal>): boolean {
  return decided.kind === "refused" ? decided.refusal.kind === "taken" : decided.events.length === 0;
}

function unrecorded(cause: unknown): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: "JOURNAL_UNAVAILABLE",
    message: "The call was run and its end could not be recorded yet. Do not send it again; ask for it with Get.",
    metadata: { stage: "settle" },
    cause,
  });
}

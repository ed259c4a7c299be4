import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import type { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Client } from "../shared/rpc/types.ts";
import type { Signer } from "../shared/signing.ts";
import type { CallCommand, CallEvent, Undo } from "./call.ts";
import type { Tool } from "./catalog.ts";
import { type Amount, type Outcome, streamOf, summaryOf } from "./model.ts";
import type { Outbox } from "./outbox.ts";
import type { Sessions, Work } from "./pipeline.ts";
import type { SessionCommand } from "./session.ts";
import { receiptBytes, toAmount, toSignedText } from "./wire.ts";

export type EndingOptions = {
  readonly sessions: Sessions;
  readonly ledger: Client<typeof LedgerService>;
  readonly approvals: Client<typeof ApprovalsService>;
  readonly signer: Signer;
  readonly outbox: Outbox;
  readonly now: () => number;
  readonly log: Log;
};

/** How long one attempt may take to end a hold or to withdraw a question. */
const ASK_MS = 2_500;
/** A refusal is answered even where it cannot be recorded; nothing has run. */
const RECORD_REFUSAL_MS = 1_000;

/** The end of a call: its receipt and its record, and what was held for it. */
export class Ending {
  readonly #options: EndingOptions;

  constructor(options: EndingOptions) {
    this.#options = options;
  }

  /** Records the end and ends what is held. The two go side by side: each is made good alone when it fails. */
  async end(work: Work, command: Extract<CallCommand, { kind: "end" }>): Promise<CallEvent> {
    const { call, tool } = work;
    const { sessions, signer, now, log } = this.#options;
    const { outcome, undo, decision } = command;
    const charged = undo.hold === "charge" ? chargeOf(tool, outcome) : [];
    const ended = { outcome, charged, endMs: now() };
    const view = { call: summaryOf(call), decision };
    const receipt = toSignedText(await signer.sign("receipt", receiptBytes(view, ended)));
    work.ended = { ...view, progress: { kind: "ended", ...ended, receipt } };
    const record: SessionCommand = { kind: "end", ...view, ...ended, receipt, addLabels: labelsAfter(tool, outcome) };
    this.undo(work, undo, charged);
    const nothingRan = outcome.kind === "refused";
    try {
      const waiting = nothingRan ? { deadlineMs: Date.now() + RECORD_REFUSAL_MS } : {};
      await sessions.execute(streamOf(call.principal), record, waiting);
    } catch (error) {
      this.#options.outbox.send(`record the end of ${call.callId}`, async () => {
        await sessions.execute(streamOf(call.principal), record);
      });
      log.warn({ err: error, callId: call.callId }, "call.end.unrecorded");
      if (!nothingRan) throw unrecorded(error);
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
        outbox.send(`charge ${callId}`, () => ledger.commit({ tenant, reservationId: callId, amounts }, options()));
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

export function priceOf(tool: Tool): Amount[] {
  const { calls = 1, ...others } = tool.manifest.price;
  const amounts = Object.entries(others).map(([unit, value]) => ({ unit, value: value ?? 0 }));
  return [{ unit: "calls", value: calls }, ...amounts];
}

/** The estimate, and what was measured where it was. A run whose end is lost costs what was expected. */
function chargeOf(tool: Tool, outcome: Outcome): Amount[] {
  const usage = "result" in outcome ? outcome.result?.usage : undefined;
  return priceOf(tool).map(({ unit, value }) => ({ unit, value: unit === "cpu_ms" && usage ? usage.cpuMs : value }));
}

/** A tool that may have run may have shown what it reads. */
function labelsAfter(tool: Tool, outcome: Outcome): readonly string[] {
  return outcome.kind === "refused" ? [] : tool.manifest.labels;
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

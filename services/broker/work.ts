import type { Tool } from "./catalog.ts";
import type { LoopVerdict } from "./guard/loops.ts";
import type { Provenance } from "./guard/provenance.ts";
import type { LiveCall } from "./live.ts";
import { type Amount, type Call, type CallView, type Decision, summaryOf } from "./model.ts";

/** One call while the pipeline works on it, and what can be said of it without asking anybody. */

/** What one request brings along. */
export type CallIo = {
  readonly signal: AbortSignal;
  /** Unix milliseconds. */
  readonly deadlineMs?: number;
  readonly traceParent?: string;
  /** A call that needs people is refused: who makes it cannot wait. */
  readonly asksNobody?: boolean;
};

/** Where a call stands when the shell lets go of it. */
export type Standing =
  | { readonly kind: "ended"; readonly view: CallView }
  | { readonly kind: "parked"; readonly view: CallView }
  /** It is the call of that id, which this request repeats; empty: the same call, elsewhere. */
  | { readonly kind: "following"; readonly callId: string };

/** One call while it is worked on. */
export type Work = {
  readonly call: Call;
  readonly tool: Tool;
  readonly live: LiveCall;
  readonly io: CallIo;
  readonly attempt: string;
  /** What people were asked under; set when the call was parked before. */
  readonly askedUnder?: Decision;
  /** What was held for it, as its record says; by default what the tool costs now. */
  readonly price?: readonly Amount[];
  /** The attempt that this one replaces. */
  readonly replaces?: string;
  /** Where what is not there yet is waited for: nobody else will try again. */
  readonly patient?: boolean;
  /** Once it has been admitted, parked or ended. */
  readonly onRecorded?: () => void;
  /** As the session was when it was last looked at. */
  labels: readonly string[];
  loop: LoopVerdict;
  provenance: Provenance;
  spent: Readonly<Record<string, number>>;
  /** The last one made of it here. */
  decision?: Decision;
  ended?: CallView;
};

export type WorkChange = Partial<Pick<Work, "askedUnder" | "price" | "replaces" | "patient" | "attempt">>;

export function parkedView({ call, decision }: Work): CallView {
  return { call: summaryOf(call), decision, progress: { kind: "pending_approval" } };
}

const DEFAULT_APPROVAL_MS = 3_600_000;

export function approvalMs(decision: Decision): number {
  return decision.obligations.approvalTtlMs || DEFAULT_APPROVAL_MS;
}

export function asksMore(now: Decision, then: Decision): boolean {
  if (now.kind !== "require_approval") return false;
  const { approverGroup, quorum } = now.obligations;
  return approverGroup !== then.obligations.approverGroup || quorum > then.obligations.quorum;
}

export function throwIfOver({ io, live }: Work): void {
  io.signal.throwIfAborted();
  live.cancelled.throwIfAborted();
}

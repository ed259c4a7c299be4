import type { Approval, WatchResolutionsResponse } from "../../proto/interlock/v1/approvals_pb.ts";
import { ApprovalState } from "../../proto/interlock/v1/approvals_pb.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { endLost, endParked, rerun, resume, type Step } from "./call.ts";
import type { Catalog, Tool } from "./catalog.ts";
import type { Amount, Call, Decision, Outcome, Refusal } from "./model.ts";
import { streamOf } from "./model.ts";
import type { Pipeline, Sessions } from "./pipeline.ts";
import type { Records } from "./records.ts";
import { guardRefusal } from "./refusals.ts";
import { withEdit } from "./secret-arguments.ts";
import { lastSteps, type SessionEvent } from "./session.ts";
import { toRefusal } from "./wire.ts";
import type { WorkChange } from "./work.ts";

export type RecoveryOptions = {
  readonly sessions: Sessions;
  readonly records: Records;
  readonly pipeline: Pipeline;
  readonly catalog: Catalog;
};

/** Names one call, wherever its record is. */
export type CallPlace = { readonly tenant: string; readonly session: string; readonly callId: string };

/**
 * Goes on with calls that no request carries any more: those that people have answered, and those whose broker is gone.
 * Whatever it does it may do twice, here or on another broker: the session's record lets only one of them through.
 */
export class Recovery {
  readonly #options: RecoveryOptions;

  constructor(options: RecoveryOptions) {
    this.#options = options;
  }

  /** People have answered, or their time is over. */
  async resolve({ approval }: WatchResolutionsResponse): Promise<void> {
    const { principal, ref } = approval ?? {};
    if (approval === undefined || principal === undefined || ref === undefined) return;
    const place = { tenant: principal.tenant, session: ref.session, callId: ref.callId };
    // People can be faster than the answer to who asked them: the call may still be on its way to being parked.
    await this.#options.pipeline.letGo(ref.callId);
    const begun = await this.#begun(place, "parked");
    if (begun === undefined) return;
    const { decision, price } = begun;
    if (approval.state === ApprovalState.APPROVED) {
      const claimed = this.#claim(approval, begun.call);
      if (claimed.kind === "claimed") {
        await this.#drive(claimed.call, resume(), { askedUnder: decision, price, patient: true });
      } else {
        const outcome = { kind: "refused", refusal: claimed.refusal } as const;
        await this.#drive(begun.call, endParked(outcome, decision, false), { askedUnder: decision });
      }
      return;
    }
    const outcome = outcomeOfNo(approval);
    if (outcome !== undefined) {
      await this.#drive(begun.call, endParked(outcome, decision, false), { askedUnder: decision });
    }
  }

  /**
   * The call that people said yes to: with a reviewer's arguments where they changed them. What is claimed here counts
   * only once the session's record admits it, and that record admits a call once.
   */
  #claim(approval: Approval, call: Call): Claim {
    const { principal, tool, toolDigest, argumentsHash, edit } = approval;
    const { tenant, agent, user } = call.principal;
    const isFor =
      principal?.tenant === tenant && principal.agent === agent && principal.user === user && tool === call.tool;
    if (!isFor || toolDigest !== call.toolDigest) {
      const message = "People said yes to another tool or for somebody else than the call's; it does not run.";
      return { kind: "refused", refusal: { ...EXPIRED, reason: "APPROVAL_MISMATCH", message } };
    }
    const mismatch = {
      kind: "refused",
      refusal: { ...EXPIRED, reason: "ARGS_MISMATCH", message: ARGS_MISMATCH },
    } as const;
    if (argumentsHash !== call.argumentsHash) return mismatch;
    if (edit === undefined) return { kind: "claimed", call };
    const found = this.#options.catalog.find(call.tool);
    if (found === undefined) return { kind: "claimed", call }; // it ends as a call whose tool is gone
    try {
      const edited = withEdit(call, found, edit.argumentsJson, this.#options.pipeline.mask);
      return edited.argumentsHash === edit.argumentsHash ? { kind: "claimed", call: edited } : mismatch;
    } catch (error) {
      return { kind: "refused", refusal: toRefusal("approve", RpcError.from(error)) };
    }
  }

  /** A call that waits for people, as it was asked; undefined when it waits no more. */
  async parked(place: CallPlace): Promise<{ readonly call: Call; readonly decision: Decision } | undefined> {
    return await this.#begun(place, "parked");
  }

  /** Asks people again: idempotent, for a call that was parked by a broker that may not have come to it. */
  async askAgain(place: CallPlace, expiresMs: number): Promise<void> {
    const { sessions, pipeline, catalog } = this.#options;
    const begun = await this.#begun(place, "parked");
    const tool = begun === undefined ? undefined : catalog.find(begun.call.tool);
    if (begun === undefined || tool === undefined) return;
    const seen = await sessions.read(streamOf(place), (state) => ({ labels: state.labels, steps: lastSteps(state) }));
    const { call, decision } = begun;
    await pipeline.ask({ call, tool, decision, expiresMs, budgets: [], ...seen }, { deadlineMs: Date.now() + 2_500 });
  }

  /** A parked call that its caller or an operator withdraws. */
  async withdraw(place: CallPlace, reason: string): Promise<void> {
    await this.#options.pipeline.letGo(place.callId);
    const begun = await this.#begun(place, "parked");
    if (begun === undefined) return;
    const step = endParked({ kind: "cancelled", reason }, begun.decision, true);
    await this.#drive(begun.call, step, { askedUnder: begun.decision });
  }

  /** Nobody answered and nobody said so: the end of an approval that its service does not know. */
  async expire(place: CallPlace): Promise<void> {
    const begun = await this.#begun(place, "parked");
    if (begun === undefined) return;
    const step = endParked({ kind: "refused", refusal: EXPIRED }, begun.decision, true);
    await this.#drive(begun.call, step, { askedUnder: begun.decision });
  }

  /** An admitted call whose time is over and that nobody ended: once more where that is harmless, else not known. */
  async recoverLost(place: CallPlace): Promise<void> {
    const begun = await this.#begun(place, "admitted");
    if (begun === undefined) return;
    const { call, decision, price, attempt } = begun;
    const tool = this.#options.catalog.find(call.tool);
    const again = tool?.manifest.idempotent === true && tool.digest === call.toolDigest && !attempt.startsWith(RETRY);
    if (!again) {
      await this.#drive(call, endLost(decision), { askedUnder: decision, price, attempt });
      return;
    }
    const { pipeline } = this.#options;
    if (pipeline.live.has(call.callId)) return;
    const work = pipeline.newWork(
      call,
      tool,
      { signal: NEVER },
      { askedUnder: decision, price, replaces: attempt, patient: true },
    );
    await pipeline.drive({ ...work, attempt: `${RETRY}${work.attempt}` }, rerun(decision));
  }

  async #drive(call: Call, step: Step, more: WorkChange): Promise<void> {
    const { pipeline, catalog } = this.#options;
    if (pipeline.live.has(call.callId)) return;
    const tool = catalog.find(call.tool);
    const current = tool?.digest === call.toolDigest;
    const known: Tool = tool ?? GONE;
    const refusal = guardRefusal({ kind: "tool_changed", tool: call.tool });
    const from =
      current || step.command.kind === "end" ? step : endParked({ kind: "refused", refusal }, more.askedUnder, false);
    await pipeline.drive(pipeline.newWork(call, known, { signal: NEVER }, more), from);
  }

  /** What was recorded of a call that stands so, or undefined when it has gone on. */
  async #begun(place: CallPlace, kind: "parked" | "admitted"): Promise<Begun | undefined> {
    const { sessions, records } = this.#options;
    const entry = await sessions.read(streamOf(place), (state) => state.calls.get(place.callId));
    if (entry?.kind !== kind) return undefined;
    const event: SessionEvent = await records.event(place, entry.seq);
    if (event.kind !== "parked" && event.kind !== "admitted") return undefined;
    const { call, decision, price } = event;
    return { call, decision, price, attempt: entry.attempt };
  }
}

type Claim =
  | { readonly kind: "claimed"; readonly call: Call }
  | { readonly kind: "refused"; readonly refusal: Refusal };

const ARGS_MISMATCH = "People said yes to other arguments than the call's; it does not run.";

type Begun = {
  readonly call: Call;
  readonly decision: Decision;
  readonly price: readonly Amount[];
  readonly attempt: string;
};

const RETRY = "retry-";
const NEVER = new AbortController().signal;

/** For a call whose tool is in the catalog no more: it ends without a price of its own. */
const GONE: Tool = {
  manifest: {
    name: "gone",
    version: "0.0.0",
    description: "A tool that is in the catalog no more.",
    impact: "high",
    effects: [],
    groups: [],
    labels: [],
    idempotent: false,
    arguments: { type: "object" },
    sandbox: { kind: "builtin", name: "noop" },
    limits: { wall_ms: 1, cpu_ms: 1, memory_bytes: 8 << 20, egress_bytes: 0, output_bytes: 0, pids: 1 },
    egress: [],
    secrets: [],
    price: {},
  },
  json: "",
  digest: "",
  models: {},
  problemOf: () => undefined,
};

const EXPIRED: Refusal = {
  stage: "approve",
  code: "PERMISSION_DENIED",
  reason: "APPROVAL_EXPIRED",
  message: "Nobody answered in time, and no answer is a no; send the call again when somebody is there.",
  metadata: {},
};

/** undefined: not an answer (yet). */
function outcomeOfNo(approval: NonNullable<WatchResolutionsResponse["approval"]>): Outcome | undefined {
  const refusal = (reason: string, message: string): Outcome => ({
    kind: "refused",
    refusal: { ...EXPIRED, reason, message },
  });
  switch (approval.state) {
    case ApprovalState.UNSPECIFIED:
    case ApprovalState.PENDING:
      return undefined;
    case ApprovalState.APPROVED:
      throw new Error("an approval that was granted is no no");
    case ApprovalState.REJECTED: {
      const no = approval.votes.find((vote) => !vote.approve);
      const said = no?.comment ? `: ${no.comment}` : ".";
      return refusal("APPROVAL_REJECTED", `${no?.reviewer ?? "A reviewer"} said no${said}`);
    }
    case ApprovalState.EXPIRED:
      return { kind: "refused", refusal: EXPIRED };
    case ApprovalState.CANCELLED:
      return { kind: "cancelled", reason: "The request to people was withdrawn." };
  }
  return undefined; // a state that this build does not know
}

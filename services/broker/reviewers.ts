import type { MessageInitShape } from "@bufbuild/protobuf";
import { z } from "zod";
import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import type {
  AnswerReviewerRequest,
  CheckEditRequest,
  CheckEditResponseSchema,
} from "../../proto/interlock/v1/broker_pb.ts";
import type { PdpService } from "../../proto/interlock/v1/pdp_pb.ts";
import type { Mask } from "../shared/mask.ts";
import { parseName } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Client, HandlerContext } from "../shared/rpc/types.ts";
import { asking } from "./asking.ts";
import type { Catalog } from "./catalog.ts";
import { provenanceOfCall } from "./guard/provenance.ts";
import type { CallView } from "./model.ts";
import { streamOf } from "./model.ts";
import type { Sessions } from "./pipeline.ts";
import { estimateOf } from "./price.ts";
import type { Place } from "./records.ts";
import type { Recovery } from "./recovery.ts";
import { guardRefusal } from "./refusals.ts";
import { maskArguments, withEdit } from "./secret-arguments.ts";
import { type CallInit, fromDecision, toCall, toFacts, toRpcError } from "./wire.ts";
import { asksMore } from "./work.ts";

/** What passes between an agent's call that waits and the people it waits for. */
export type ReviewersOptions = {
  readonly approvals: Client<typeof ApprovalsService>;
  readonly pdp: Client<typeof PdpService>;
  readonly recovery: Recovery;
  readonly sessions: Sessions;
  readonly catalog: Catalog;
  readonly mask: Mask;
  /** Normalised, as the pipeline has them. */
  readonly knownValues: readonly string[];
  readonly now: () => number;
};

const answer = z.object({
  questionId: z.string().min(1, "it is missing").max(64),
  text: z.string().trim().min(1, "write an answer").max(4_000, "write at most 4000 characters"),
});

const ASK_MS = 2_500;

export class Reviewers {
  readonly #options: ReviewersOptions;

  constructor(options: ReviewersOptions) {
    this.#options = options;
  }

  /** The call, with what reviewers want to know where it waits for them. */
  async asked(view: CallView, signal: AbortSignal): Promise<CallInit> {
    const call = toCall(view);
    if (view.progress.kind !== "pending_approval") return call;
    const { callId, principal } = view.call;
    const request = { tenant: principal.tenant, approvalId: callId };
    // Where approvals does not answer, the call still waits, and that is what is asked for.
    const found = await this.#options.approvals
      .getApproval(request, { signal, deadlineMs: Date.now() + ASK_MS })
      .catch(() => undefined);
    const questions = found?.approval?.questions ?? [];
    return {
      ...call,
      questions: questions.map(({ questionId, text, answer: said }) => ({ questionId, text, answer: said })),
    };
  }

  /** @throws RpcError when there is no such question, or it is too late to answer it. */
  async answer(place: Place, request: AnswerReviewerRequest, { signal }: HandlerContext): Promise<void> {
    const parsed = answer.safeParse(request);
    if (!parsed.success) {
      const issue = parsed.error.issues[0];
      const field = issue?.path[0] === "text" ? "text" : "question_id";
      const message = `Change ${field}: ${issue?.message}.`;
      throw new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field, message });
    }
    const given = { tenant: place.tenant, approvalId: place.callId, ...parsed.data };
    const sent = this.#options.approvals.answerQuestion(given, { signal, deadlineMs: Date.now() + ASK_MS });
    await asking("approvals", sent);
  }

  /**
   * Whether a call that waits could run with a reviewer's arguments: its schema, its price, then policy are asked. What is
   * held for it stays as it is, so they may cost no more than what was asked.
   * @throws RpcError saying what is wrong with them.
   */
  async checkEdit(
    request: CheckEditRequest,
    { caller, signal }: HandlerContext,
  ): Promise<MessageInitShape<typeof CheckEditResponseSchema>> {
    const { recovery, catalog, mask, sessions, pdp, knownValues, now } = this.#options;
    if (caller.kind !== "service") throw servicesOnly();
    const tenant = parseName("tenant", request.tenant);
    const session = parseName("ref.session", request.ref?.session ?? "");
    const callId = parseName("ref.call_id", request.ref?.callId ?? "");
    const parked = await recovery.parked({ tenant, session, callId });
    const tool = parked === undefined ? undefined : catalog.find(parked.call.tool);
    if (parked === undefined || tool === undefined || tool.digest !== parked.call.toolDigest) throw waitsNoMore();
    const edited = withEdit(parked.call, tool, request.argumentsJson, mask);
    const held = new Map(estimateOf(tool, parked.call.argumentsJson).map(({ unit, value }) => [unit, value]));
    const dearer = estimateOf(tool, edited.argumentsJson).find(({ unit, value }) => value > (held.get(unit) ?? 0));
    if (dearer !== undefined) throw costsMore(dearer.unit);
    const seen = await sessions.peek(streamOf({ tenant, session }), ({ labels, known }) => ({
      labels,
      provenance: provenanceOfCall(known, edited, tool.manifest, knownValues),
    }));
    const facts = toFacts(edited, tool, { ...seen, loop: "clear", nowMs: now() });
    const response = await asking("pdp", pdp.decide({ facts }, { signal, deadlineMs: Date.now() + ASK_MS }));
    const decision = fromDecision(response.decision);
    if (decision.kind === "deny") throw policyForbids(decision.reasons);
    if (asksMore(decision, parked.decision)) throw toRpcError(guardRefusal({ kind: "policy_mismatch" }));
    const { argumentsHash, argumentsJson } = edited;
    return { argumentsHash, argumentsJson: maskArguments(argumentsJson, tool, mask) };
  }
}

function costsMore(unit: string): RpcError {
  return new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "BUDGET_NOT_HELD",
    field: "arguments_json",
    message: `With these arguments the call costs more ${unit} than is held for it. Reject it, and have the agent ask anew.`,
  });
}

function policyForbids(reasons: readonly string[]): RpcError {
  return new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "POLICY_DENIED",
    field: "arguments_json",
    message: `Policy forbids the call with these arguments: ${reasons.join(" ")} Change them, or reject it.`,
  });
}

function waitsNoMore(): RpcError {
  return new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "CALL_NOT_WAITING",
    message: "This call does not wait for people any more, or its tool has changed. Look at it again.",
  });
}

function servicesOnly(): RpcError {
  return new RpcError({
    code: "PERMISSION_DENIED",
    reason: "SERVICES_ONLY",
    message: "Only Interlock's own services check a reviewer's arguments.",
  });
}

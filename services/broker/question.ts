import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ApprovalSchema } from "../../proto/interlock/v1/approvals_pb.ts";
import type { Mask } from "../shared/mask.ts";
import type { Tool } from "./catalog.ts";
import type { BudgetLeft } from "./holds.ts";
import type { Call, Decision } from "./model.ts";
import { estimateOf } from "./price.ts";
import { maskArguments } from "./secret-arguments.ts";
import type { Step } from "./session.ts";
import { toAmount, toTimestamp, toToolFacts } from "./wire.ts";

/** What people are asked about one call. */
export type Question = {
  readonly call: Call;
  readonly tool: Tool;
  readonly decision: Decision;
  readonly expiresMs: number;
  /** What the session has touched. */
  readonly labels: readonly string[];
  /** What the session did last, oldest first. */
  readonly steps: readonly Step[];
  /** Empty where it is asked again and nobody knows. */
  readonly budgets: readonly BudgetLeft[];
};

/** As it is put to them: secrets masked, bound to the arguments as they would run. */
export function toApproval(question: Question, mask: Mask): MessageInitShape<typeof ApprovalSchema> {
  const { call, tool, decision, expiresMs, labels, steps, budgets } = question;
  const { callId, principal, toolDigest, argumentsHash, createdMs } = call;
  const { approverGroups, quorum, confirm, escalateGroup, escalateAfterMs } = decision.obligations;
  const { description, review } = tool.manifest;
  const { impact, effects } = toToolFacts(tool.manifest, tool.digest);
  return {
    approvalId: callId,
    ref: { session: principal.session, callId },
    ...{ principal, tool: call.tool, toolDigest, argumentsHash, confirm, escalateGroup },
    approverGroups: [...approverGroups],
    ...(escalateGroup === "" ? {} : { escalateTime: toTimestamp(createdMs + escalateAfterMs) }),
    ...{ toolDescription: description, sentence: review?.sentence ?? "", firstArguments: review?.first ?? [] },
    ...(impact === undefined ? {} : { impact }),
    effects: effects ?? [],
    argumentsJson: maskArguments(call.argumentsJson, tool, mask),
    reasons: [...decision.reasons],
    rules: [...decision.matchedRules],
    policyRevision: decision.revision,
    price: estimateOf(tool, call.argumentsJson).map(toAmount),
    budgets: [...budgets],
    labels: [...labels],
    steps: steps.map(({ tool: name, outcome, timeMs }) => ({ tool: name, outcome, time: toTimestamp(timeMs) })),
    quorum: Math.max(1, quorum),
    createTime: toTimestamp(createdMs),
    expireTime: toTimestamp(expiresMs),
  };
}

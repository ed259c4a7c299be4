import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ApprovalSchema } from "../../proto/interlock/v1/approvals_pb.ts";
import type { Mask } from "../shared/mask.ts";
import type { Tool } from "./catalog.ts";
import type { Call, Decision } from "./model.ts";
import { estimateOf } from "./price.ts";
import { toAmount, toTimestamp } from "./wire.ts";

/** What people are asked about one call. */
export type Question = {
  readonly call: Call;
  readonly tool: Tool;
  readonly decision: Decision;
  readonly expiresMs: number;
  /** What the session has touched. */
  readonly labels: readonly string[];
};

/** As it is put to them: secrets masked, bound to the arguments as they would run. */
export function toApproval(question: Question, mask: Mask): MessageInitShape<typeof ApprovalSchema> {
  const { call, tool, decision, expiresMs, labels } = question;
  const { callId, principal, toolDigest, argumentsHash, createdMs } = call;
  const { approverGroup, quorum } = decision.obligations;
  return {
    approvalId: callId,
    ref: { session: principal.session, callId },
    ...{ principal, tool: call.tool, toolDigest, argumentsHash, approverGroup },
    toolDescription: tool.manifest.description,
    argumentsJson: mask(call.argumentsJson),
    reasons: [...decision.reasons],
    policyRevision: decision.revision,
    price: estimateOf(tool, call.argumentsJson).map(toAmount),
    labels: [...labels],
    quorum: Math.max(1, quorum),
    createTime: toTimestamp(createdMs),
    expireTime: toTimestamp(expiresMs),
  };
}

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type CallEventSchema, type CallSchema, CallState, ReceiptSchema } from "../../proto/interlock/v1/broker_pb.ts";
import type { Decision as WireDecision, RunResult as WireRunResult } from "../../proto/interlock/v1/types_pb.ts";
import {
  type AncestorSchema,
  DecisionKind,
  type DecisionSchema,
  type FactsSchema,
  Impact,
  LoopVerdict,
  type RunResultSchema,
  type SignedSchema,
  type ToolFactsSchema,
  RunEnd as WireEnd,
} from "../../proto/interlock/v1/types_pb.ts";
import { sha256Hex } from "../shared/json.ts";
import type { Manifest } from "../shared/manifest.ts";
import { Code, type CodeName, RpcError } from "../shared/rpc/errors.ts";
import { toStatus } from "../shared/rpc/status.ts";
import type { SignedBytes } from "../shared/signing.ts";
import type { Tool } from "./catalog.ts";
import { fromEgress, toEgress } from "./egress-wire.ts";
import type { LoopLevel } from "./guard/loops.ts";
import type { Provenance } from "./guard/provenance.ts";
import type { ProgressEvent } from "./live.ts";
import { fromMeasures, toMeasures, unknownIn } from "./measures.ts";
import type {
  Amount,
  Call,
  CallView,
  Decision,
  Limits,
  Outcome,
  Refusal,
  RunEnd,
  RunResult,
  SignedText,
  Stage,
} from "./model.ts";

/** Between the broker's own words and the contract's messages. What comes in is checked; nothing unknown is defaulted. */

const NO_LIMITS: Limits = { wallMs: 0, cpuMs: 0, memoryBytes: 0, outputBytes: 0, pids: 0 };

/** @throws RpcError INTERNAL when it is no decision we know: then nothing is allowed. */
export function fromDecision(decision: WireDecision | undefined): Decision {
  const kind = decision === undefined ? undefined : KINDS.get(decision.kind);
  if (decision === undefined || kind === undefined) {
    const message = "The policy decision point answered with no decision that this broker knows; nothing runs on it.";
    throw new RpcError({ code: "INTERNAL", reason: "DECISION_UNKNOWN", message });
  }
  const { obligations } = decision;
  const limits = obligations?.limits;
  const unknown = obligations === undefined ? [] : unknownIn(obligations);
  if (unknown.length > 0) return denialOf(decision, unknown);
  return {
    kind,
    reasons: decision.reasons,
    matchedRules: decision.matchedRules,
    revision: decision.revision,
    obligations: {
      ...(obligations && fromMeasures(obligations)),
      limits: limits === undefined ? NO_LIMITS : fromLimits(limits),
      approverGroup: obligations?.approverGroup ?? "",
      quorum: obligations?.quorum ?? 0,
      approvalTtlMs: Number(obligations?.approvalTtlMs ?? 0n),
    },
  };
}

/** What policy imposes cannot be honoured here: then nothing runs. */
function denialOf({ matchedRules, revision }: WireDecision, unknown: readonly string[]): Decision {
  const reason = `The policy imposes ${unknown.join(", ")}, which this broker does not know; an operator must update it or change the rule.`;
  const obligations = { limits: NO_LIMITS, approverGroup: "", quorum: 0, approvalTtlMs: 0 };
  return { kind: "deny", reasons: [reason], matchedRules, revision, obligations };
}

const KINDS = new Map<DecisionKind, Decision["kind"]>([
  [DecisionKind.ALLOW, "allow"],
  [DecisionKind.DENY, "deny"],
  [DecisionKind.REQUIRE_APPROVAL, "require_approval"],
]);

function fromLimits(limits: NonNullable<NonNullable<WireDecision["obligations"]>["limits"]>): Limits {
  const { wallMs, cpuMs, memoryBytes, outputBytes, pids } = limits;
  return {
    wallMs: Number(wallMs),
    cpuMs: Number(cpuMs),
    memoryBytes: Number(memoryBytes),
    outputBytes: Number(outputBytes),
    pids,
  };
}

export function toLimits(limits: Limits): {
  wallMs: bigint;
  cpuMs: bigint;
  memoryBytes: bigint;
  outputBytes: bigint;
  pids: number;
} {
  const { wallMs, cpuMs, memoryBytes, outputBytes, pids } = limits;
  return {
    wallMs: BigInt(wallMs),
    cpuMs: BigInt(cpuMs),
    memoryBytes: BigInt(memoryBytes),
    outputBytes: BigInt(outputBytes),
    pids,
  };
}

const ENDS: Record<RunEnd, WireEnd> = {
  exited: WireEnd.EXITED,
  timeout: WireEnd.TIMEOUT,
  cpu: WireEnd.CPU,
  oom: WireEnd.OOM,
  killed: WireEnd.KILLED,
  lost: WireEnd.LOST,
  limit: WireEnd.LIMIT,
};
const END_NAMES = new Map(Object.entries(ENDS).map(([name, end]) => [end, name as RunEnd]));

/** An end that we do not know is a lost one. */
export function fromRunResult(result: WireRunResult): RunResult {
  const { exitCode, resultJson, stdout, stderr, truncated, error, usage, enforcement, limit } = result;
  return {
    end: END_NAMES.get(result.end) ?? "lost",
    ...{ exitCode, resultJson, stdout, stderr, truncated, error },
    usage: {
      wallMs: Number(usage?.wallMs ?? 0n),
      cpuMs: Number(usage?.cpuMs ?? 0n),
      peakMemoryBytes: Number(usage?.peakMemoryBytes ?? 0n),
      outputBytes: Number(usage?.outputBytes ?? 0n),
      ...(usage === undefined || usage.egressBytes === 0n ? {} : { egressBytes: Number(usage.egressBytes) }),
    },
    ...fromEgress(result),
    enforcement: {
      kind: enforcement?.kind ?? "",
      isolationClass: enforcement?.isolationClass ?? "",
      enforced: enforcement?.enforced ?? [],
      missing: enforcement?.missing ?? [],
    },
    ...(limit === undefined
      ? {}
      : { limit: { name: limit.name, allowed: Number(limit.allowed), used: Number(limit.used) } }),
  };
}

export function toRunResult(result: RunResult): MessageInitShape<typeof RunResultSchema> {
  const { end, usage, enforcement, limit, egress, ...same } = result;
  return {
    ...{ ...same, ...toEgress(egress), end: ENDS[end] },
    ...{ usage: toUsage(usage), enforcement: toEnforcement(enforcement) },
    ...(limit === undefined
      ? {}
      : { limit: { name: limit.name, allowed: BigInt(limit.allowed), used: BigInt(limit.used) } }),
  };
}

function toUsage({ wallMs, cpuMs, peakMemoryBytes, outputBytes, egressBytes = 0 }: RunResult["usage"]) {
  return {
    wallMs: BigInt(wallMs),
    cpuMs: BigInt(cpuMs),
    peakMemoryBytes: BigInt(peakMemoryBytes),
    outputBytes: BigInt(outputBytes),
    egressBytes: BigInt(egressBytes),
  };
}

function toEnforcement({ kind, isolationClass, enforced, missing }: RunResult["enforcement"]) {
  return { kind, isolationClass, enforced: [...enforced], missing: [...missing] };
}

const IMPACTS = { low: Impact.LOW, medium: Impact.MEDIUM, high: Impact.HIGH } as const;
const LEVELS: Record<LoopLevel, LoopVerdict> = {
  clear: LoopVerdict.CLEAR,
  repeating: LoopVerdict.REPEATING,
  warned: LoopVerdict.WARNED,
  ask: LoopVerdict.ASK,
  stopped: LoopVerdict.STOPPED,
};

export function toToolFacts(manifest: Manifest, digest: string): MessageInitShape<typeof ToolFactsSchema> {
  const { name, version, impact, effects, groups } = manifest;
  return { name, version, digest, impact: IMPACTS[impact], effects: [...effects], groups: [...groups] };
}

export function toFacts(
  call: Pick<Call, "principal" | "argumentsJson" | "ancestors">,
  tool: Tool,
  seen: {
    readonly labels: readonly string[];
    readonly loop: LoopLevel;
    readonly provenance: Provenance;
    readonly nowMs: number;
    readonly spent?: Readonly<Record<string, number>>;
  },
): MessageInitShape<typeof FactsSchema> {
  return {
    principal: call.principal,
    tool: toToolFacts(tool.manifest, tool.digest),
    argumentsJson: call.argumentsJson,
    labels: [...seen.labels],
    loop: LEVELS[seen.loop],
    origins: [...seen.provenance.origins],
    foreign: [
      ...new Set(seen.provenance.foreign.flatMap(({ origin, path }) => (origin === "untrusted" ? [path] : []))),
    ],
    time: toTimestamp(seen.nowMs),
    spent: Object.entries(seen.spent ?? {}).map(([unit, value]) => ({ unit, value: BigInt(value) })),
    ancestors: toAncestors(call),
  };
}

export function toAncestors({ ancestors = [] }: Pick<Call, "ancestors">): MessageInitShape<typeof AncestorSchema>[] {
  return ancestors.map(({ callId, principal, tool }) => ({
    ...{ ref: { session: principal.session, callId }, principal, tool },
  }));
}

const WIRE_KINDS = {
  allow: DecisionKind.ALLOW,
  deny: DecisionKind.DENY,
  require_approval: DecisionKind.REQUIRE_APPROVAL,
} as const;

function toDecision(decision: Decision): MessageInitShape<typeof DecisionSchema> {
  const { limits, approverGroup, quorum, approvalTtlMs } = decision.obligations;
  return {
    kind: WIRE_KINDS[decision.kind],
    reasons: [...decision.reasons],
    matchedRules: [...decision.matchedRules],
    revision: decision.revision,
    obligations: {
      ...toMeasures(decision.obligations),
      limits: toLimits(limits),
      approverGroup,
      quorum,
      approvalTtlMs: BigInt(approvalTtlMs),
    },
  };
}

const STATES: Record<Outcome["kind"], CallState> = {
  succeeded: CallState.SUCCEEDED,
  failed: CallState.FAILED,
  refused: CallState.REFUSED,
  cancelled: CallState.CANCELLED,
  outcome_unknown: CallState.OUTCOME_UNKNOWN,
};

type Ended = Extract<CallView["progress"], { kind: "ended" }>;

/** What a call and its receipt say alike. */
function toBegun({ call, decision }: Pick<CallView, "call" | "decision">) {
  const { callId, principal, tool, toolDigest, argumentsHash, ancestors: [parent] = [] } = call;
  const approvalId = decision?.kind === "require_approval" ? callId : "";
  return {
    ...{ ref: { session: principal.session, callId }, principal, tool, toolDigest, argumentsHash, approvalId },
    ...(parent === undefined ? {} : { parent: { session: parent.principal.session, callId: parent.callId } }),
  };
}

export function toCall(view: CallView): MessageInitShape<typeof CallSchema> {
  const { decision, progress } = view;
  const begun = {
    ...toBegun(view),
    createTime: toTimestamp(view.call.createdMs),
    ...(decision === undefined ? {} : { decision: toDecision(decision) }),
  };
  switch (progress.kind) {
    case "pending_approval":
      return { ...begun, state: CallState.PENDING_APPROVAL };
    case "running":
      return { ...begun, state: CallState.RUNNING };
    case "ended": {
      const { outcome, charged, receipt, endMs, warnings = [] } = progress;
      return {
        ...begun,
        ...toOutcome(outcome),
        state: STATES[outcome.kind],
        charged: charged.map(toAmount),
        endTime: toTimestamp(endMs),
        warnings: [...warnings],
        ...(receipt === undefined ? {} : { receipt: toSigned(receipt) }),
      };
    }
  }
}

function toOutcome(outcome: Outcome): Pick<MessageInitShape<typeof CallSchema>, "result" | "refusal"> {
  switch (outcome.kind) {
    case "succeeded":
    case "failed":
      return { result: toRunResult(outcome.result) };
    case "cancelled":
      return outcome.result === undefined ? {} : { result: toRunResult(outcome.result) };
    case "refused":
      return { refusal: toStatus(toRpcError(outcome.refusal)) };
    case "outcome_unknown":
      return {
        refusal: toStatus(new RpcError({ code: "UNKNOWN", reason: "OUTCOME_UNKNOWN", message: outcome.message })),
      };
  }
}

export function toCallEvent(event: ProgressEvent): MessageInitShape<typeof CallEventSchema> {
  const time = toTimestamp(event.timeMs);
  switch (event.kind) {
    case "stage":
      return { time, kind: { case: "stage", value: { stage: event.stage, note: event.note } } };
    case "output":
      return { time, kind: { case: "output", value: { stderr: event.stderr, text: event.text } } };
  }
}

export function toAmount({ unit, value }: Amount): { unit: string; value: bigint } {
  return { unit, value: BigInt(value) };
}

export function toTimestamp(ms: number): Timestamp {
  return timestampFromMs(ms);
}

export function toSigned(signed: SignedText): MessageInitShape<typeof SignedSchema> {
  const { payload, signature, keyId } = signed;
  return { payload: Buffer.from(payload, "base64"), signature: Buffer.from(signature, "base64"), keyId };
}

export function toSignedText({ payload, signature, keyId }: SignedBytes): SignedText {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");
  return { payload: base64(payload), signature: base64(signature), keyId };
}

/** The bytes of interlock.v1.Receipt for a call that has ended so. */
export function receiptBytes(
  view: Pick<CallView, "call" | "decision">,
  ended: Pick<Ended, "outcome" | "charged" | "endMs">,
): Uint8Array {
  const { call, decision } = view;
  const { outcome, charged, endMs } = ended;
  const ran = "result" in outcome ? outcome.result : undefined;
  const receipt = create(ReceiptSchema, {
    ...toBegun(view),
    state: STATES[outcome.kind],
    decision: decision === undefined ? DecisionKind.UNSPECIFIED : WIRE_KINDS[decision.kind],
    policyRevision: decision?.revision ?? "",
    resultHash: ran === undefined ? "" : sha256Hex(JSON.stringify([ran.resultJson, ran.stdout, ran.stderr, ran.error])),
    charged: charged.map(toAmount),
    endTime: toTimestamp(endMs),
    createTime: toTimestamp(call.createdMs),
    ...(ran === undefined ? {} : { usage: toUsage(ran.usage), enforcement: toEnforcement(ran.enforcement) }),
  });
  return toBinary(ReceiptSchema, receipt);
}

export function toRpcError(refusal: Refusal): RpcError {
  const { stage, code, reason, message, field, metadata, retryAfterMs } = refusal;
  return new RpcError({
    code: isCode(code) ? code : "UNKNOWN",
    ...{ reason, message, metadata: { ...metadata, stage } },
    ...(field === undefined ? {} : { field }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}

export function toRefusal(stage: Stage, error: RpcError): Refusal {
  const { code, reason, message, field, metadata, retryAfterMs } = error;
  return {
    ...{ stage, code, reason, message, metadata },
    ...(field === undefined ? {} : { field }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  };
}

function isCode(text: string): text is CodeName {
  return text !== "OK" && Object.hasOwn(Code, text);
}

import { create, fromBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { CallSchema, CallState, type Receipt, ReceiptSchema } from "../../proto/interlock/v1/broker_pb.ts";
import {
  DecisionKind,
  DecisionSchema,
  FactsSchema,
  LoopVerdict,
  RunResultSchema,
  RunEnd as WireEnd,
} from "../../proto/interlock/v1/types_pb.ts";
import { sha256Hex } from "../shared/json.ts";
import { canonicalManifest, manifestSchema } from "../shared/manifest.ts";
import { fromStatus } from "../shared/rpc/status.ts";
import { newSigningKeyPem, signerFromPem, verifierOf } from "../shared/signing.ts";
import { ALLOW, ASK, callOf, DENY, decisionOf, NOW_MS, PRINCIPAL, refusalOf, resultOf, summary } from "./fixture.ts";
import type { Provenance } from "./guard/provenance.ts";
import { type CallView, type Outcome, RUN_ENDS, STAGES } from "./model.ts";
import {
  fromDecision,
  fromRunResult,
  receiptBytes,
  toCall,
  toCallEvent,
  toFacts,
  toRefusal,
  toRpcError,
  toRunResult,
  toSigned,
  toSignedText,
  toTimestamp,
} from "./wire.ts";

const RESULT = resultOf();
const CHARGED = [
  { unit: "calls", value: 1 },
  { unit: "usd_micros", value: 9_007_199_254_740_991 },
];
const OUTCOMES: readonly (readonly [Outcome, CallState])[] = [
  [{ kind: "succeeded", result: RESULT }, CallState.SUCCEEDED],
  [{ kind: "failed", result: resultOf({ exitCode: 1 }) }, CallState.FAILED],
  [{ kind: "refused", refusal: refusalOf() }, CallState.REFUSED],
  [{ kind: "cancelled", reason: "enough" }, CallState.CANCELLED],
  [{ kind: "cancelled", reason: "enough", result: resultOf({ end: "killed" }) }, CallState.CANCELLED],
  [{ kind: "outcome_unknown", message: "gone" }, CallState.OUTCOME_UNKNOWN],
];

function viewOf(progress: CallView["progress"], decision: CallView["decision"] = ALLOW): CallView {
  return { call: summary(), decision, progress };
}

function ended(outcome: Outcome): Extract<CallView["progress"], { kind: "ended" }> {
  return { kind: "ended", outcome, charged: CHARGED, receipt: undefined, endMs: NOW_MS + 5 };
}

function receiptOf(outcome: Outcome, decision: CallView["decision"] = ALLOW): Receipt {
  return fromBinary(ReceiptSchema, receiptBytes({ call: summary(), decision }, ended(outcome)));
}

describe("a decision that comes in", () => {
  test("is taken as it is", () => {
    const limits = { wallMs: 1n, cpuMs: 2n, memoryBytes: 3n, outputBytes: 4n, pids: 5 };
    const wire = create(DecisionSchema, {
      kind: DecisionKind.REQUIRE_APPROVAL,
      reasons: ["Because."],
      matchedRules: ["a:1"],
      revision: "rev",
      obligations: { limits, approverGroup: "leads", quorum: 2, approvalTtlMs: 60_000n },
    });
    expect(fromDecision(wire)).toEqual({
      kind: "require_approval",
      reasons: ["Because."],
      matchedRules: ["a:1"],
      revision: "rev",
      obligations: {
        limits: { wallMs: 1, cpuMs: 2, memoryBytes: 3, outputBytes: 4, pids: 5 },
        approverGroup: "leads",
        quorum: 2,
        approvalTtlMs: 60_000,
      },
    });
  });

  test("without obligations imposes nothing", () => {
    const { obligations } = fromDecision(create(DecisionSchema, { kind: DecisionKind.ALLOW }));
    expect(obligations).toEqual(decisionOf().obligations);
  });

  test.each([
    ["none", undefined],
    ["one without a kind", create(DecisionSchema)],
    ["one of a kind that does not exist yet", create(DecisionSchema, { kind: 9 as DecisionKind })],
  ])("%s is no permission", (_, wire) => {
    expect(() => fromDecision(wire)).toThrow(expect.objectContaining({ code: "INTERNAL", reason: "DECISION_UNKNOWN" }));
  });
});

describe("a run's result", () => {
  test.each(RUN_ENDS)("that ended by %s comes back as it went", (end) => {
    const result = resultOf({ end, exitCode: 3, stdout: "out", stderr: "err", truncated: true, error: "boom" });
    expect(fromRunResult(create(RunResultSchema, toRunResult(result)))).toEqual(result);
  });

  test.each([WireEnd.UNSPECIFIED, 99 as WireEnd])("that ended by %i is a lost one", (end) => {
    expect(fromRunResult(create(RunResultSchema, { end })).end).toBe("lost");
  });

  test("without usage and enforcement used and enforced nothing", () => {
    expect(fromRunResult(create(RunResultSchema))).toMatchObject({
      usage: { wallMs: 0, cpuMs: 0, peakMemoryBytes: 0, outputBytes: 0 },
      enforcement: { kind: "", isolationClass: "", enforced: [], missing: [] },
    });
  });
});

describe("a receipt", () => {
  test("says who, what, by which decision, and what it cost", () => {
    expect(receiptOf({ kind: "succeeded", result: RESULT })).toEqual(
      create(ReceiptSchema, {
        ref: { session: PRINCIPAL.session, callId: "call-1" },
        principal: PRINCIPAL,
        tool: "orders.lookup",
        toolDigest: "d".repeat(64),
        argumentsHash: callOf().argumentsHash,
        state: CallState.SUCCEEDED,
        decision: DecisionKind.ALLOW,
        policyRevision: ALLOW.revision,
        resultHash: sha256Hex(JSON.stringify(['{"ok":true}', "", "", ""])),
        charged: [
          { unit: "calls", value: 1n },
          { unit: "usd_micros", value: 9_007_199_254_740_991n },
        ],
        usage: { wallMs: 7n, cpuMs: 3n, peakMemoryBytes: 1024n, outputBytes: 11n },
        enforcement: { kind: "builtin", isolationClass: "none", enforced: ["no-code"] },
        createTime: toTimestamp(NOW_MS),
        endTime: toTimestamp(NOW_MS + 5),
      }),
    );
  });

  test.each(OUTCOMES)("of $kind", (outcome, state) => {
    const receipt = receiptOf(outcome);
    const ran = "result" in outcome;
    expect([receipt.state, receipt.resultHash !== "", receipt.usage !== undefined]).toEqual([state, ran, ran]);
  });

  test("of a call that people were asked about names the approval", () => {
    expect(receiptOf({ kind: "succeeded", result: RESULT }, ASK).approvalId).toBe("call-1");
    expect(receiptOf({ kind: "succeeded", result: RESULT }, ALLOW).approvalId).toBe("");
  });

  test("of a call that was never decided names no decision", () => {
    const bytes = receiptBytes(
      { call: summary(), decision: undefined },
      ended({ kind: "refused", refusal: refusalOf() }),
    );
    expect(fromBinary(ReceiptSchema, bytes)).toMatchObject({ decision: DecisionKind.UNSPECIFIED, policyRevision: "" });
  });

  test("its signature covers exactly its bytes, also once it has been through the record", async () => {
    const signer = signerFromPem(newSigningKeyPem());
    const { verify } = verifierOf([signer.publicKey]);
    const bytes = receiptBytes({ call: summary(), decision: DENY }, ended({ kind: "refused", refusal: refusalOf() }));
    const recorded = JSON.parse(JSON.stringify(toSignedText(await signer.sign("receipt", bytes))));
    const call = create(
      CallSchema,
      toCall(viewOf({ ...ended({ kind: "refused", refusal: refusalOf() }), receipt: recorded })),
    );
    const signed = call.receipt;
    if (signed === undefined) throw new Error("the call has no receipt");
    expect(verify("receipt", signed)).toBe("ok");
    expect(verify("permit", signed)).toBe("bad signature");
    expect(Buffer.compare(signed.payload, bytes)).toBe(0);
    for (let i = 0; i < signed.payload.length; i++) {
      const payload = signed.payload.map((byte, at) => (at === i ? byte ^ 1 : byte));
      expect(verify("receipt", { ...signed, payload })).toBe("bad signature");
    }
    expect(toSigned(recorded).keyId).toBe(signer.keyId);
  });
});

describe("a call as it is answered", () => {
  test.each([
    ["pending_approval", CallState.PENDING_APPROVAL],
    ["running", CallState.RUNNING],
  ] as const)("%s", (kind, state) => {
    const call = create(CallSchema, toCall(viewOf({ kind }, ASK)));
    expect(call).toMatchObject({ state, approvalId: "call-1", tool: "orders.lookup", charged: [] });
    expect([call.endTime, call.receipt, call.result, call.refusal]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
    expect(call.decision?.kind).toBe(DecisionKind.REQUIRE_APPROVAL);
  });

  test.each(OUTCOMES)("ended: $kind", (outcome, state) => {
    const call = create(CallSchema, toCall(viewOf(ended(outcome))));
    expect(call.state).toBe(state);
    expect(call.result !== undefined).toBe("result" in outcome);
    expect(call.refusal !== undefined).toBe(outcome.kind === "refused" || outcome.kind === "outcome_unknown");
    expect(call.charged.map(({ unit, value }) => `${value} ${unit}`)).toEqual([
      "1 calls",
      "9007199254740991 usd_micros",
    ]);
  });

  test("a call of no known decision has none", () => {
    const { decision: _, ...view } = viewOf({ kind: "running" });
    expect(create(CallSchema, toCall({ ...view, decision: undefined })).decision).toBeUndefined();
  });

  test("an outcome that is not known says so", () => {
    const { refusal } = create(CallSchema, toCall(viewOf(ended({ kind: "outcome_unknown", message: "gone" }))));
    if (refusal === undefined) throw new Error("the call says nothing");
    expect(fromStatus(refusal)).toMatchObject({ code: "UNKNOWN", reason: "OUTCOME_UNKNOWN", message: "gone" });
  });
});

describe("a refusal", () => {
  test.each(STAGES)("at %s is an error, and the same refusal again", (stage) => {
    const refusal = refusalOf({ stage, field: "session", metadata: { a: "b" }, retryAfterMs: 500 });
    const error = toRpcError(refusal);
    expect(error).toMatchObject({
      code: "UNAVAILABLE",
      reason: "PDP_UNAVAILABLE",
      field: "session",
      retryAfterMs: 500,
    });
    expect(error.metadata).toEqual({ a: "b", stage });
    expect(toRefusal(stage, error)).toEqual({ ...refusal, metadata: { a: "b", stage } });
  });

  test.each(["OK", "FINE", "toString", ""])("of code %j, which is none, is UNKNOWN", (code) => {
    expect(toRpcError(refusalOf({ code })).code).toBe("UNKNOWN");
  });
});

test("what happens to a call is told with its time", () => {
  expect(toCallEvent({ kind: "stage", timeMs: NOW_MS, stage: "guard", note: "again" })).toEqual({
    time: toTimestamp(NOW_MS),
    kind: { case: "stage", value: { stage: "guard", note: "again" } },
  });
  expect(toCallEvent({ kind: "output", timeMs: NOW_MS, stderr: true, text: "oops" })).toMatchObject({
    kind: { case: "output", value: { stderr: true, text: "oops" } },
  });
});

test("policy is shown the principal, the manifest, the arguments, the labels, the loop and the time", () => {
  const manifest = manifestSchema.parse({
    name: "orders.lookup",
    version: "1.2.3",
    description: "Looks up an order.",
    impact: "high",
    effects: ["reads"],
    groups: ["orders"],
    arguments: { type: "object" },
    sandbox: { kind: "builtin", name: "noop" },
  });
  const tool = { manifest, ...canonicalManifest(manifest), models: {}, problemOf: () => undefined };
  const foreign: Provenance["foreign"] = [
    { path: "to[0]", value: "eve", origin: "untrusted", source: "web.read" },
    { path: "to[0]", value: "mallory", origin: "untrusted", source: "web.read" },
    { path: "link", value: "x.example", origin: "nowhere", source: "" },
  ];
  const provenance: Provenance = { origins: ["user", "untrusted", "nowhere"], foreign };
  const seen = { labels: ["private-data"], loop: "repeating", provenance, nowMs: NOW_MS } as const;
  expect(create(FactsSchema, toFacts(callOf(), tool, seen))).toMatchObject({
    principal: PRINCIPAL,
    tool: {
      name: "orders.lookup",
      version: "1.2.3",
      digest: tool.digest,
      impact: 3,
      effects: ["reads"],
      groups: ["orders"],
    },
    argumentsJson: '{"order":1}',
    labels: ["private-data"],
    loop: LoopVerdict.REPEATING,
    origins: ["user", "untrusted", "nowhere"],
    foreign: ["to[0]"],
    time: toTimestamp(NOW_MS),
  });
});

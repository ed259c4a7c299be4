import type { Heard } from "./guard/provenance.ts";
import type { Signature } from "./guard/signature.ts";

/**
 * The broker's own words for a call, as its record keeps them: plain JSON values, so that what is decided on, recorded
 * and read back is one and the same. Amounts are whole units below 2^53; times are Unix milliseconds.
 */

export type Principal = {
  readonly tenant: string;
  readonly agent: string;
  readonly session: string;
  /** The person the agent acts for; empty where there is none. */
  readonly user: string;
};

/** One request to run one tool, resolved: the tool exists and its arguments fit its schema. */
export type Call = CallSummary & {
  /** Canonical JSON of an object. */
  readonly argumentsJson: string;
};

/** A call without its arguments: what answers and receipts show. */
export type CallSummary = {
  readonly callId: string;
  readonly principal: Principal;
  readonly tool: string;
  readonly toolDigest: string;
  readonly argumentsHash: string;
  /** Empty where the caller sent none. */
  readonly idempotencyKey: string;
  readonly createdMs: number;
  /** What the loop rules know of it; absent in records that are older than they. */
  readonly signature?: Signature;
  /** What the user has said, sent along with this call. */
  readonly heard?: Heard;
  /** The calls it was made by, nearest first; absent for an agent's own call. */
  readonly ancestors?: readonly Ancestor[];
};

/** A call whose program made another. */
export type Ancestor = {
  readonly callId: string;
  readonly principal: Principal;
  readonly tool: string;
  readonly argumentsHash: string;
};

export type Amount = { readonly unit: string; readonly value: number };

export type Decision = {
  readonly kind: "allow" | "deny" | "require_approval";
  readonly reasons: readonly string[];
  readonly matchedRules: readonly string[];
  readonly obligations: Obligations;
  readonly revision: string;
};

/** Zero and empty impose nothing. */
export type Obligations = {
  readonly limits: Limits;
  readonly approverGroup: string;
  /** The only ways out; undefined leaves the manifest's. */
  readonly egress?: readonly string[];
  /** Fields that are taken out of what the tool answers. */
  readonly redact?: readonly string[];
  /** Who is told that the call was made. */
  readonly notify?: readonly string[];
  readonly quorum: number;
  readonly approvalTtlMs: number;
};

/** Zero leaves the bound to the manifest. */
export type Limits = {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly memoryBytes: number;
  readonly outputBytes: number;
  readonly pids: number;
};

export const STAGES = [
  "authenticate",
  "resolve",
  "guard",
  "decide",
  "reserve",
  "approve",
  "permit",
  "run",
  "filter",
  "settle",
  "receipt",
] as const;
export type Stage = (typeof STAGES)[number];

/** Why a call did not run: an RpcError as data. */
export type Refusal = {
  readonly stage: Stage;
  readonly code: string;
  readonly reason: string;
  readonly message: string;
  readonly field?: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs?: number;
};

export const RUN_ENDS = ["exited", "timeout", "cpu", "oom", "killed", "lost", "limit"] as const;
export type RunEnd = (typeof RUN_ENDS)[number];

export type RunResult = {
  readonly end: RunEnd;
  readonly exitCode: number;
  readonly resultJson: string;
  readonly stdout: string;
  readonly stderr: string;
  readonly truncated: boolean;
  readonly error: string;
  readonly usage: {
    readonly wallMs: number;
    readonly cpuMs: number;
    readonly peakMemoryBytes: number;
    readonly outputBytes: number;
    /** Absent in records of before there was a way out. */
    readonly egressBytes?: number;
  };
  /** What it asked of the world; absent where it asked nothing. */
  readonly egress?: { readonly records: readonly EgressRecord[]; readonly leftOut: number };
  readonly enforcement: {
    readonly kind: string;
    readonly isolationClass: string;
    readonly enforced: readonly string[];
    readonly missing: readonly string[];
  };
  /** The limit that ended it. */
  readonly limit?: { readonly name: string; readonly allowed: number; readonly used: number };
};

/** One request of a sandbox through its egress proxy. */
export type EgressRecord = {
  readonly id: string;
  readonly atMs: number;
  readonly kind: string;
  readonly host: string;
  readonly port: number;
  readonly method: string;
  readonly path: string;
  readonly rule: string;
  readonly refused: string;
  readonly status: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
};

/** How a call ended. */
export type Outcome =
  | { readonly kind: "succeeded"; readonly result: RunResult }
  | { readonly kind: "failed"; readonly result: RunResult }
  | { readonly kind: "refused"; readonly refusal: Refusal }
  | { readonly kind: "cancelled"; readonly reason: string; readonly result?: RunResult }
  | { readonly kind: "outcome_unknown"; readonly message: string };

/** Signed bytes, base64. */
export type SignedText = { readonly payload: string; readonly signature: string; readonly keyId: string };

/** A call as its caller sees it, at whatever point of its life. */
export type CallView = {
  readonly call: CallSummary;
  readonly decision: Decision | undefined;
  readonly progress:
    | { readonly kind: "pending_approval" }
    | { readonly kind: "running" }
    | {
        readonly kind: "ended";
        readonly outcome: Outcome;
        readonly charged: readonly Amount[];
        readonly receipt: SignedText | undefined;
        readonly endMs: number;
        /** What the guard tells the agent. */
        readonly warnings?: readonly string[];
      };
};

export function summaryOf({ argumentsJson: _, ...summary }: Call): CallSummary {
  return summary;
}

/** What a loop counts as the same call. */
export function signatureOf(call: Pick<Call, "tool" | "argumentsHash">): string {
  return `${call.tool} ${call.argumentsHash}`;
}

export function streamOf(principal: Pick<Principal, "tenant" | "session">): string {
  return `session.${principal.tenant}.${principal.session}`;
}

import type { EgressRule } from "../shared/egress.ts";
import type { Manifest, SandboxSpec, SecretSpec } from "../shared/manifest.ts";
import type { RpcError } from "../shared/rpc/errors.ts";
import type { EgressRecord } from "./egress/records.ts";

/** One way to run a call: isolates, containers, builtins. The service checks permits; a backend confines. */
export interface Backend extends AsyncDisposable {
  readonly kind: SandboxKind;
  describe(): Promise<readonly Capability[]>;
  /**
   * Refuses what cannot be enforced here; never weakens it.
   * @throws RpcError FAILED_PRECONDITION, before anything has started.
   */
  check(spec: RunSpec): void;
  /**
   * Runs to exactly one result. Nothing that the program does makes it throw: only a fault of the sandbox machinery
   * does, as an RpcError. Aborting the signal kills the sandbox; the result then ends "killed".
   */
  run(spec: RunSpec, io: RunIo): Promise<RunResult>;
}

export type SandboxKind = SandboxSpec["kind"];

/** One way to run, or why not. */
export type Capability = {
  readonly kind: SandboxKind;
  /** process for isolates; runc, gvisor or kata for containers; none for builtins. */
  readonly isolationClass: string;
  readonly available: boolean;
  /** Why not, and how to mend it. */
  readonly note: string;
  readonly images: readonly string[];
  /** What holds, e.g. no-network, memory-limit. */
  readonly enforced: readonly string[];
  /** What was wanted and does not hold on this machine. */
  readonly missing: readonly string[];
  /** Sandboxes kept ready and in use, of all classes together; once, with the first. */
  readonly pool?: {
    readonly idle: number;
    readonly making: number;
    readonly claimed: number;
    readonly missed: number;
    readonly sessions: number;
  };
};

/** What a permit allowed, as the service checked it. */
export type RunSpec = {
  readonly callId: string;
  readonly tenant: string;
  readonly agent: string;
  readonly session: string;
  /** Empty where the agent acts for nobody. */
  readonly user: string;
  readonly tool: string;
  readonly impact: Manifest["impact"];
  readonly sandbox: SandboxSpec;
  /** Canonical JSON of an object. */
  readonly argumentsJson: string;
  /** Every bound is set: the service has filled in the manifest's where the permit left one open. */
  readonly limits: Limits;
  /** Empty: no network. */
  readonly egress: readonly EgressRule[];
  /** How many calls it was made through; 0 for an agent's own. */
  readonly depth: number;
  /** By reference. */
  readonly secrets: readonly SecretSpec[];
};

export type Limits = {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly memoryBytes: number;
  /** Of the result, of stdout and of stderr, each. */
  readonly outputBytes: number;
  readonly pids: number;
  /** Through the egress proxy, both ways together. */
  readonly egressBytes: number;
};

export type OutputStream = "stdout" | "stderr";

export type RunIo = {
  /** As it comes and within the output limit. Must not throw. */
  readonly onOutput: (stream: OutputStream, text: string) => void;
  readonly signal: AbortSignal;
  /**
   * Has the broker make a tool call for the program; absent where a program can make none. Never rejects. The signal
   * aborts when nobody waits any more.
   */
  readonly onCall?: (call: ProgramCall, signal: AbortSignal) => Promise<CallAnswer>;
};

/** A call as a program asked for it: nothing of it has been checked. */
export type ProgramCall = { readonly tool: string; readonly argumentsJson: string };

export type CallAnswer =
  /** Empty: the tool returned no value. */
  { readonly kind: "value"; readonly json: string } | { readonly kind: "error"; readonly error: RpcError };

/** See interlock.v1.RunEnd. */
export type RunEnd = "exited" | "timeout" | "cpu" | "oom" | "killed" | "lost" | "limit";

/** The limit that ended a run, and how much of it was seen to be used. */
export type LimitHit = {
  readonly name:
    | "wall_ms"
    | "cpu_ms"
    | "heap_bytes"
    | "off_heap_bytes"
    | "output_bytes"
    | "tool_calls"
    | "binding_calls";
  readonly allowed: number;
  readonly used: number;
};

export type RunResult = {
  readonly end: RunEnd;
  readonly exitCode: number;
  /** The value the tool returned, as JSON; empty when it returned none. */
  readonly resultJson: string;
  readonly stdout: string;
  readonly stderr: string;
  /** Output was cut: head and tail are kept. */
  readonly truncated: boolean;
  /** What went wrong inside, for the agent; empty when nothing did. */
  readonly error: string;
  readonly usage: Usage;
  readonly enforcement: Enforcement;
  readonly limit?: LimitHit;
  /** What it asked of the world; absent where it had no way out. */
  readonly egress?: { readonly records: readonly EgressRecord[]; readonly left: number };
};

export type Usage = {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly peakMemoryBytes: number;
  readonly outputBytes: number;
  readonly egressBytes?: number;
};

/** What really confined a run. */
export type Enforcement = {
  readonly kind: SandboxKind;
  readonly isolationClass: string;
  readonly enforced: readonly string[];
  readonly missing: readonly string[];
};

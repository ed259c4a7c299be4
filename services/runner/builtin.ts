import type { SandboxSpec } from "../shared/manifest.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Backend, Capability, Enforcement, RunResult, RunSpec } from "./backend.ts";

/** Functions inside the runner that reach nothing: for tests and benchmarks of the pipeline. */
export function openBuiltinBackend(): Backend {
  return {
    kind: "builtin",
    describe: async () => [CAPABILITY],
    check: (spec) => void parseBuiltin(spec.sandbox),
    run: async (spec) => perform(parseBuiltin(spec.sandbox), spec),
    [Symbol.asyncDispose]: async () => {},
  };
}

type Builtin = Extract<SandboxSpec, { kind: "builtin" }>;

const CAPABILITY: Capability = {
  kind: "builtin",
  isolationClass: "none",
  available: true,
  note: "functions of Interlock itself; no tool's code runs in them",
  images: [],
  enforced: ["no-code"],
  missing: [],
};

const ENFORCEMENT: Enforcement = {
  kind: "builtin",
  isolationClass: "none",
  enforced: CAPABILITY.enforced,
  missing: [],
};

function perform(builtin: Builtin, spec: RunSpec): RunResult {
  const resultJson = resultOf(builtin, spec);
  const outputBytes = Buffer.byteLength(resultJson);
  const fits = outputBytes <= spec.limits.outputBytes;
  return {
    end: "exited",
    exitCode: fits ? 0 : 1,
    resultJson: fits ? resultJson : "",
    stdout: "",
    stderr: "",
    truncated: false,
    error: fits ? "" : `The result is ${outputBytes} bytes; ${spec.limits.outputBytes} are allowed. Return less.`,
    usage: { wallMs: 0, cpuMs: 0, peakMemoryBytes: 0, outputBytes },
    enforcement: ENFORCEMENT,
  };
}

function resultOf(builtin: Builtin, spec: RunSpec): string {
  switch (builtin.name) {
    case "noop":
      return "";
    case "echo":
      return spec.argumentsJson;
  }
}

function parseBuiltin(sandbox: SandboxSpec): Builtin {
  if (sandbox.kind === "builtin") return sandbox;
  throw new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "SANDBOX_UNAVAILABLE",
    message: `Builtins cannot run a tool of kind ${sandbox.kind}; choose a runner that can.`,
  });
}

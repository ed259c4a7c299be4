import { canonicalJson, parseJson } from "../../shared/json.ts";
import type { Enforcement, RunResult, RunSpec } from "../backend.ts";
import type { EgressProxy } from "../egress/proxy.ts";
import type { ContainerClass } from "./facts.ts";
import type { FileResult } from "./files.ts";
import { NOTHING_USED } from "./meter.ts";
import type { Ended } from "./run.ts";

/** Runs as results: what a caller hears of them. */

export function resultOf(
  spec: RunSpec,
  ended: Ended,
  found: ContainerClass,
  proxy: EgressProxy | undefined,
): RunResult {
  const { end, exitCode, output, used, wallMs } = ended;
  const returned = end === "exited" && exitCode === 0 && !output.truncated;
  return {
    ...{ end, exitCode, truncated: output.truncated, stdout: output.stdout, stderr: output.stderr },
    enforcement: enforcementOf(found, spec),
    resultJson: returned ? jsonIn(output.stdout) : "",
    error: errorOf(spec, ended),
    usage: { wallMs, ...used, outputBytes: output.outputBytes, egressBytes: proxy?.usedBytes ?? 0 },
    ...(proxy === undefined ? {} : { egress: proxy.records.list() }),
  };
}

/** Of an operation on a session, which is no program. */
export function operationResult(spec: RunSpec, done: FileResult, wallMs: number, found: ContainerClass): RunResult {
  return {
    ...{ end: "exited", exitCode: done.exitCode, resultJson: done.resultJson, error: done.error },
    ...{ stdout: "", stderr: "", truncated: false, enforcement: enforcementOf(found, spec) },
    usage: { wallMs, ...NOTHING_USED, outputBytes: Buffer.byteLength(done.resultJson) },
  };
}

function enforcementOf({ kind, isolationClass, enforced, missing }: ContainerClass, spec: RunSpec): Enforcement {
  const session = spec.sandbox.kind === "container" && spec.sandbox.lifetime === "session";
  const held = enforced.filter((name) => name !== "fresh-per-call" || !session);
  return { kind, isolationClass, enforced: [...held, ...(spec.egress.length > 0 ? ["egress-filter"] : [])], missing };
}

/** A program returns a value by printing one JSON value and nothing else. */
function jsonIn(stdout: string): string {
  try {
    return canonicalJson(parseJson(stdout));
  } catch {
    return "";
  }
}

function errorOf({ limits }: RunSpec, { end, exitCode, broke }: Ended): string {
  switch (end) {
    case "exited":
      return exitCode === 0 ? "" : `The program ended with exit code ${exitCode}.`;
    case "timeout":
      return `The program ran longer than the ${limits.wallMs} ms it is allowed.`;
    case "cpu":
      return `The program used more than the ${limits.cpuMs} ms of CPU time it is allowed.`;
    case "oom":
      return `The program used more than the ${limits.memoryBytes} bytes of memory it is allowed.`;
    case "killed":
      return "The call was cancelled.";
    case "lost":
    case "limit": // no limit of a container ends it so
      return broke === "" ? "The sandbox died without saying why." : broke;
  }
}

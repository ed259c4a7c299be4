import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type RunResultSchema,
  RunEnd as WireEnd,
  type RunResult as WireRunResult,
} from "../../proto/interlock/v1/types_pb.ts";
import { fromEgress, toEgress } from "./egress-wire.ts";
import type { RunEnd, RunResult } from "./model.ts";

/** What came of a run, to and from the contracts. */

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

export function toUsage({ wallMs, cpuMs, peakMemoryBytes, outputBytes, egressBytes = 0 }: RunResult["usage"]) {
  return {
    wallMs: BigInt(wallMs),
    cpuMs: BigInt(cpuMs),
    peakMemoryBytes: BigInt(peakMemoryBytes),
    outputBytes: BigInt(outputBytes),
    egressBytes: BigInt(egressBytes),
  };
}

export function toEnforcement({ kind, isolationClass, enforced, missing }: RunResult["enforcement"]) {
  return { kind, isolationClass, enforced: [...enforced], missing: [...missing] };
}

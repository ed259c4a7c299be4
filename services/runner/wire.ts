import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { CapabilitySchema } from "../../proto/interlock/v1/runner_pb.ts";
import { type EgressRecordSchema, type RunResultSchema, RunEnd as WireEnd } from "../../proto/interlock/v1/types_pb.ts";
import type { Capability, RunEnd, RunResult } from "./backend.ts";
import type { EgressRecord } from "./egress/records.ts";

const ENDS: Record<RunEnd, WireEnd> = {
  exited: WireEnd.EXITED,
  timeout: WireEnd.TIMEOUT,
  cpu: WireEnd.CPU,
  oom: WireEnd.OOM,
  killed: WireEnd.KILLED,
  lost: WireEnd.LOST,
  limit: WireEnd.LIMIT,
};

export function toRunResult(result: RunResult): MessageInitShape<typeof RunResultSchema> {
  const { usage, enforcement, limit, egress } = result;
  return {
    end: ENDS[result.end],
    exitCode: result.exitCode,
    resultJson: result.resultJson,
    stdout: result.stdout,
    stderr: result.stderr,
    truncated: result.truncated,
    error: result.error,
    usage: {
      wallMs: toUint64(usage.wallMs),
      cpuMs: toUint64(usage.cpuMs),
      peakMemoryBytes: toUint64(usage.peakMemoryBytes),
      outputBytes: toUint64(usage.outputBytes),
      egressBytes: toUint64(usage.egressBytes ?? 0),
    },
    enforcement: {
      kind: enforcement.kind,
      isolationClass: enforcement.isolationClass,
      enforced: [...enforcement.enforced],
      missing: [...enforcement.missing],
    },
    ...(limit === undefined
      ? {}
      : { limit: { name: limit.name, allowed: toUint64(limit.allowed), used: toUint64(limit.used) } }),
    egress: (egress?.records ?? []).map(toEgressRecord),
    egressLeftOut: egress?.left ?? 0,
  };
}

function toEgressRecord(record: EgressRecord): MessageInitShape<typeof EgressRecordSchema> {
  const { atMs, ms, bytesSent, bytesReceived, ...same } = record;
  return {
    ...same,
    time: timestampFromMs(atMs),
    bytesSent: toUint64(bytesSent),
    bytesReceived: toUint64(bytesReceived),
    durationMs: toUint64(ms),
  };
}

export function toCapability(capability: Capability): MessageInitShape<typeof CapabilitySchema> {
  const { pool, ...found } = capability;
  return {
    ...(pool === undefined ? {} : { pool: { ...pool, claimed: BigInt(pool.claimed), missed: BigInt(pool.missed) } }),
    ...found,
    images: [...found.images],
    enforced: [...found.enforced],
    missing: [...found.missing],
  };
}

/** Rounded up: what was used is never reported as nothing. */
function toUint64(value: number): bigint {
  return BigInt(Math.ceil(value));
}

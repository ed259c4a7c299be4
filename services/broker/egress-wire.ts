import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type {
  EgressRecordSchema,
  EgressRecord as WireRecord,
  RunResult as WireRunResult,
} from "../../proto/interlock/v1/types_pb.ts";
import type { EgressRecord, RunResult } from "./model.ts";

/** What a run asked of the world, to and from the contracts. */

export function fromEgress({ egress, egressLeftOut }: WireRunResult): Pick<RunResult, "egress"> {
  if (egress.length === 0) return {};
  return { egress: { records: egress.map(fromRecord), leftOut: egressLeftOut } };
}

function fromRecord(record: WireRecord): EgressRecord {
  const { id, kind, host, port, method, path, rule, refused, status, time } = record;
  return {
    ...{ id, kind, host, port, method, path, rule, refused, status },
    atMs: time === undefined ? 0 : timestampMs(time),
    bytesSent: Number(record.bytesSent),
    bytesReceived: Number(record.bytesReceived),
    durationMs: Number(record.durationMs),
  };
}

export function toEgress(egress: RunResult["egress"]): {
  egress: MessageInitShape<typeof EgressRecordSchema>[];
  egressLeftOut: number;
} {
  return { egress: (egress?.records ?? []).map(toRecord), egressLeftOut: egress?.leftOut ?? 0 };
}

function toRecord({ atMs, bytesSent, bytesReceived, durationMs, ...same }: EgressRecord) {
  return {
    ...same,
    time: timestampFromMs(atMs),
    bytesSent: BigInt(bytesSent),
    bytesReceived: BigInt(bytesReceived),
    durationMs: BigInt(durationMs),
  };
}

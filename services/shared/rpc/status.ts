import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type Any, anyPack, anyUnpack } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../../../proto/google/rpc/error_details_pb.ts";
import { type Status, StatusSchema } from "../../../proto/google/rpc/status_pb.ts";
import { Code, type CodeName, RpcError } from "./errors.ts";

/** Errors as google.rpc.Status: how they cross every border, and how a refusal is kept in a record. */

/** The domain of every ErrorInfo of ours. */
export const DOMAIN = "interlock";

export function toStatus(error: RpcError): Status {
  const { reason, field, message, retryAfterMs } = error;
  const details: Any[] = [
    anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: DOMAIN, metadata: error.metadata })),
  ];
  if (field !== undefined) {
    const fieldViolations = [{ field, description: message }];
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations })));
  }
  if (retryAfterMs !== undefined) {
    const retryDelay = { seconds: BigInt(Math.floor(retryAfterMs / 1000)), nanos: (retryAfterMs % 1000) * 1_000_000 };
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  return create(StatusSchema, { code: Code[error.code], message, details });
}

/** Total: what another server says without our details becomes an RpcError whose reason is its code's name. */
export function fromStatus(status: Status): RpcError {
  const code = codeName(status.code);
  const info = unpack(status, ErrorInfoSchema);
  const field = unpack(status, BadRequestSchema)?.fieldViolations[0]?.field;
  const delay = unpack(status, RetryInfoSchema)?.retryDelay;
  return new RpcError({
    code,
    reason: info?.reason ?? code,
    message: status.message,
    ...(field === undefined ? {} : { field }),
    ...(info === undefined ? {} : { metadata: info.metadata }),
    ...(delay === undefined ? {} : { retryAfterMs: Number(delay.seconds) * 1000 + Math.round(delay.nanos / 1e6) }),
  });
}

export function statusToBinary(status: Status): Uint8Array {
  return toBinary(StatusSchema, status);
}

/** @throws Error when the bytes are no google.rpc.Status. */
export function statusFromBinary(bytes: Uint8Array): Status {
  return fromBinary(StatusSchema, bytes);
}

/** A code that is none of ours, or OK, is never an answer: it becomes UNKNOWN. */
export function codeName(code: number): CodeName {
  return NAMES.get(code) ?? "UNKNOWN";
}

const NAMES = new Map(
  Object.entries(Code)
    .filter(([name]) => name !== "OK")
    .map(([name, code]) => [code as number, name as CodeName]),
);

function unpack<Desc extends DescMessage>(status: Status, desc: Desc): MessageShape<Desc> | undefined {
  for (const detail of status.details) {
    if (!detail.typeUrl.endsWith(`/${desc.typeName}`)) continue;
    try {
      return anyUnpack(detail, desc);
    } catch {
      return undefined; // a detail that cannot be read is one that is not there
    }
  }
  return undefined;
}

import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { z } from "zod";
import {
  type Approval as ApprovalMessage,
  type ApprovalSchema,
  ApprovalState,
} from "../../proto/interlock/v1/approvals_pb.ts";
import { JsonError, parseJson } from "../shared/json.ts";
import { NAME, TOOL_NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Approval, End, NewApproval } from "./approval.ts";

/** Protobuf to our own types and back. What is unspecified or unknown is refused, never defaulted. */

const MAX_ARGUMENTS_BYTES = 256 << 10;
const MAX_COMMENT = 2_000;
/** 9999-12-31T23:59:59Z: the last second a date is written for with four digits. */
const MAX_SECONDS = 253_402_300_799n;

const name = z.string().regex(NAME, "use 1 to 64 letters, digits, '-' or '_', the first a letter or digit");
const nameOrEmpty = name.or(z.literal(""));
const hash = z.string().regex(/^[0-9a-f]{64}$/, "give a SHA-256 as 64 lower-case hex digits");
const id = z
  .string()
  .regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, "give the whole id, a lower-case UUID as it was shown to you");
const comment = z.string().max(MAX_COMMENT, `write at most ${MAX_COMMENT} characters`);

const time = z
  .object({ seconds: z.bigint().min(0n).max(MAX_SECONDS), nanos: z.int().min(0).max(999_999_999) }, "set a time")
  .transform(({ seconds, nanos }) => Number(seconds) * 1000 + Math.floor(nanos / 1e6));

const argumentsJson = z.string().superRefine((text, context) => {
  if (Buffer.byteLength(text) > MAX_ARGUMENTS_BYTES) {
    context.addIssue(`it is longer than ${MAX_ARGUMENTS_BYTES} bytes; send less`);
    return;
  }
  try {
    const value = parseJson(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) context.addIssue("send a JSON object");
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    context.addIssue(error.path === "" ? error.message : `${error.path}: ${error.message}`);
  }
});

const approvalSchema = z.object(
  {
    approvalId: id,
    ref: z.object({ session: name, callId: id }, "name the call"),
    principal: z.object({ tenant: name, agent: name, session: name, user: nameOrEmpty }, "name who asks"),
    tool: z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. orders.refund"),
    toolDigest: hash,
    toolDescription: z.string().max(4096),
    argumentsJson,
    argumentsHash: hash,
    reasons: z.array(z.string().max(2_000)).max(100),
    policyRevision: z.string().max(128),
    price: z
      .array(
        z.object({
          unit: z.enum(["usd_micros", "calls", "cpu_ms", "tokens", "egress_bytes"]),
          value: z.bigint().min(0n, "a price is never negative"),
        }),
      )
      .max(16),
    labels: z.array(z.string().min(1).max(64)).max(64),
    approverGroup: nameOrEmpty,
    quorum: z.int().min(0).max(20),
    createTime: time.optional(),
    expireTime: time,
  },
  "send the approval to ask for",
);

/** @throws RpcError INVALID_ARGUMENT naming the field. Whether it expires in time is the decider's to say. */
export function parseApproval(message: ApprovalMessage | undefined, nowMs: number): NewApproval {
  const { approvalId, ref, principal, tool, toolDigest, argumentsHash, approverGroup, quorum, ...rest } = parse(
    approvalSchema,
    message,
    "approval",
  );
  const { createTime, expireTime, ...shown } = rest;
  return {
    binding: {
      approvalId,
      ref,
      principal,
      tool,
      toolDigest,
      argumentsHash,
      approverGroup,
      quorum: Math.max(1, quorum),
    },
    shown,
    createdAtMs: createTime ?? nowMs,
    expiresAtMs: expireTime,
  };
}

export const getSchema = z.object({ approvalId: id });
export const approveSchema = z.object({
  approvalId: id,
  argumentsHash: hash,
  comment,
});
export const rejectSchema = z.object({ approvalId: id, comment });
export const cancelSchema = z.object({ approvalId: id, reason: comment });

/** @throws RpcError INVALID_ARGUMENT naming the field. */
export function parse<S extends z.ZodType>(schema: S, message: unknown, prefix?: string): z.output<S> {
  const parsed = schema.safeParse(message);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const path = (issue?.path ?? []).map((part) => String(part).replaceAll(/[A-Z]/g, (c) => `_${c.toLowerCase()}`));
  const field = (prefix === undefined ? path : [prefix, ...path]).join(".");
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "FIELD_INVALID",
    field,
    message: `Change ${field}: ${issue?.message.replace(/\.$/, "")}.`,
    cause: parsed.error,
  });
}

/** What a list asks for. @throws RpcError INVALID_ARGUMENT for a state that is none. */
export function parseState(state: ApprovalState): "pending" | End {
  const known = STATES.get(state);
  if (known !== undefined) return known;
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "FIELD_INVALID",
    field: "state",
    message: `Change state: ${state} is none. Leave it unset for what is pending, or use 1 to 5.`,
  });
}

/** Empty: from the beginning. @throws RpcError INVALID_ARGUMENT for what was never handed out as a position. */
export function parsePosition(after: string): number {
  const position = after === "" ? 0 : /^\d{1,16}$/.test(after) ? Number(after) : Number.NaN;
  if (Number.isSafeInteger(position)) return position;
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "POSITION_INVALID",
    field: "after",
    message: "Change after: send a position exactly as an answer gave it, or leave it empty for everything.",
  });
}

const STATES: ReadonlyMap<ApprovalState, "pending" | End> = new Map([
  [ApprovalState.UNSPECIFIED, "pending"],
  [ApprovalState.PENDING, "pending"],
  [ApprovalState.APPROVED, "approved"],
  [ApprovalState.REJECTED, "rejected"],
  [ApprovalState.EXPIRED, "expired"],
  [ApprovalState.CANCELLED, "cancelled"],
]);

const TO_STATE: Readonly<Record<"pending" | End, ApprovalState>> = {
  pending: ApprovalState.PENDING,
  approved: ApprovalState.APPROVED,
  rejected: ApprovalState.REJECTED,
  expired: ApprovalState.EXPIRED,
  cancelled: ApprovalState.CANCELLED,
};

/** Plain fields, never a message: only those can be spread. */
export type ApprovalInit = Extract<MessageInitShape<typeof ApprovalSchema>, { $typeName?: never }>;

export function toApproval(approval: Approval): ApprovalInit {
  const { price, reasons, labels, ...shown } = approval.shown;
  return { ...toResolution(approval), ...shown, price: [...price], reasons: [...reasons], labels: [...labels] };
}

/** Without what only a reviewer reads. */
export function toResolution(approval: Omit<Approval, "shown">): ApprovalInit {
  const { binding, createdAtMs, expiresAtMs, votes, ending } = approval;
  return {
    ...binding,
    state: TO_STATE[ending?.end ?? "pending"],
    createTime: timestampFromMs(createdAtMs),
    expireTime: timestampFromMs(expiresAtMs),
    votes: votes.map(({ timeMs, ...vote }) => ({ ...vote, time: timestampFromMs(timeMs) })),
  };
}

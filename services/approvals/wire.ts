import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { z } from "zod";
import {
  type Approval as ApprovalMessage,
  type ApprovalSchema,
  ApprovalState,
} from "../../proto/interlock/v1/approvals_pb.ts";
import { Impact } from "../../proto/interlock/v1/types_pb.ts";
import { JsonError, parseJson } from "../shared/json.ts";
import { NAME, TOOL_NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Absence, Approval, Binding, End, Grant, NewApproval, Question } from "./approval.ts";

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

const principal = z.object({ tenant: name, agent: name, session: name, user: nameOrEmpty }, "name who asks");
const toolName = z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. orders.refund");

const approvalSchema = z.object(
  {
    approvalId: id,
    ref: z.object({ session: name, callId: id }, "name the call"),
    principal,
    tool: toolName,
    toolDigest: hash,
    toolDescription: z.string().max(4096),
    argumentsJson,
    argumentsHash: hash,
    reasons: z.array(z.string().max(2_000)).max(100),
    rules: z.array(z.string().max(300)).max(100),
    policyRevision: z.string().max(128),
    sentence: z.string().max(1_000),
    impact: z.enum(Impact).transform((impact, context) => {
      const known = IMPACT_WORDS[impact];
      if (known !== undefined) return known;
      context.addIssue("say how much the tool can do: 1 (low) to 3 (high)");
      return z.NEVER;
    }),
    effects: z.array(z.string().max(64)).max(16),
    firstArguments: z.array(z.string().max(64)).max(32),
    budgets: z
      .array(
        z.object({
          name: z.string().max(128),
          scope: z.string().max(16),
          subject: z.string().max(128),
          unit: z.string().max(32),
          limit: z.bigint(),
          available: z.bigint(),
        }),
      )
      .max(64),
    steps: z.array(z.object({ tool: z.string().max(256), outcome: z.string().max(64), time })).max(20),
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
    approverGroups: z.array(name).max(8),
    quorum: z.int().min(0).max(20),
    confirm: z.boolean(),
    escalateGroup: nameOrEmpty,
    escalateTime: time.optional(),
    createTime: time.optional(),
    expireTime: time,
  },
  "send the approval to ask for",
);

/** @throws RpcError INVALID_ARGUMENT naming the field. Whether it expires in time is the decider's to say. */
export function parseApproval(message: ApprovalMessage | undefined, nowMs: number): NewApproval {
  const parsed = parse(approvalSchema, message, "approval");
  const { approvalId, ref, principal, tool, toolDigest, argumentsHash, policyRevision, ...asked } = parsed;
  const { approverGroup, approverGroups, quorum, confirm, escalateGroup, escalateTime, ...rest } = asked;
  const { createTime, expireTime, steps, ...shown } = rest;
  const groups = approverGroups.length > 0 ? approverGroups : approverGroup === "" ? [] : [approverGroup];
  const need = {
    groups: [...new Set(groups)].toSorted((a, b) => (a < b ? -1 : 1)),
    quorum: Math.max(1, quorum),
    confirm,
    escalateGroup,
    escalateAtMs: escalateTime ?? 0,
  };
  return {
    binding: { approvalId, ref, principal, tool, toolDigest, argumentsHash, policyRevision, need },
    shown: { ...shown, steps: steps.map(({ time: timeMs, ...step }) => ({ ...step, timeMs })) },
    createdAtMs: createTime ?? nowMs,
    expiresAtMs: expireTime,
  };
}

const IMPACT_WORDS: Partial<Record<Impact, "low" | "medium" | "high">> = {
  [Impact.LOW]: "low",
  [Impact.MEDIUM]: "medium",
  [Impact.HIGH]: "high",
};
const TO_IMPACT = { low: Impact.LOW, medium: Impact.MEDIUM, high: Impact.HIGH } as const;

export const getSchema = z.object({ approvalId: id });
const duration = z
  .object({ seconds: z.bigint().min(0n), nanos: z.int().min(0) }, "give a time")
  .transform(({ seconds, nanos }) => Number(seconds) * 1_000 + Math.floor(nanos / 1e6));
export const approveSchema = z.object({
  approvalId: id,
  argumentsHash: hash,
  comment,
  calls: z.int().transform((calls) => Math.max(1, calls)),
  editedArgumentsJson: argumentsJson.or(z.literal("")),
  grant: z
    .object({
      uses: z.int(),
      duration,
      bounds: z.array(z.object({ argument: z.string().min(1).max(64), max: z.number() })).max(16),
    })
    .optional(),
});
export const askSchema = z.object({
  approvalId: id,
  text: z.string().trim().min(1, "write a question").max(MAX_COMMENT),
});
export const answerSchema = z.object({
  approvalId: id,
  questionId: id,
  text: z.string().trim().min(1, "write an answer").max(4_000),
});
export const revokeSchema = z.object({ grantId: id });
export const absenceSchema = z.object({ until: time.optional(), standIn: nameOrEmpty });
export const linkSchema = z.object({ approvalId: id.or(z.literal("")) });
export const rejectSchema = z.object({ approvalId: id, comment });
export const noticeSchema = z
  .object({
    ref: z.object({ callId: id }, "name the call"),
    principal,
    tool: toolName,
    names: z.array(z.string().max(64)).min(1).max(100),
    reasons: z.array(z.string().max(2_000)).max(100),
    rules: z.array(z.string().max(300)).max(100),
  })
  .transform(({ ref, ...notice }) => ({ ...notice, callId: ref.callId }));
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
  const { price, reasons, labels, rules, effects, budgets, firstArguments, steps, impact, ...shown } = approval.shown;
  return {
    ...toResolution(approval),
    ...shown,
    impact: TO_IMPACT[impact],
    price: [...price],
    reasons: [...reasons],
    labels: [...labels],
    rules: [...rules],
    effects: [...effects],
    budgets: [...budgets],
    firstArguments: [...firstArguments],
    steps: steps.map(({ timeMs, ...step }) => ({ ...step, time: timestampFromMs(timeMs) })),
    questions: approval.questions.map(toQuestion),
    joined: approval.joined.map(({ ref }) => ref),
  };
}

function toQuestion({ timeMs, answer, ...question }: Question) {
  return {
    ...question,
    time: timestampFromMs(timeMs),
    answer: answer?.text ?? "",
    ...(answer === undefined ? {} : { answerTime: timestampFromMs(answer.timeMs) }),
  };
}

type Resolution = Pick<Approval, "binding" | "createdAtMs" | "expiresAtMs" | "votes" | "edit" | "ending">;

/** Without what only a reviewer reads. */
export function toResolution(approval: Resolution): ApprovalInit {
  const { binding, createdAtMs, expiresAtMs, votes, edit, ending } = approval;
  return {
    ...toBinding(binding),
    state: TO_STATE[ending?.end ?? "pending"],
    createTime: timestampFromMs(createdAtMs),
    expireTime: timestampFromMs(expiresAtMs),
    votes: votes.map(({ timeMs, groups: _, argumentsHash: __, ...vote }) => ({
      ...vote,
      time: timestampFromMs(timeMs),
    })),
    ...(edit === undefined ? {} : { edit: { ...edit, time: timestampFromMs(edit.timeMs) } }),
    ...(ending === undefined
      ? {}
      : {
          endedBy: [...ending.by],
          endReason: ending.reason,
          grantId: ending.grantId,
          endTime: timestampFromMs(ending.timeMs),
        }),
  };
}

function toBinding({ need, ...same }: Binding): ApprovalInit {
  const { groups, quorum, confirm, escalateGroup, escalateAtMs } = need;
  return {
    ...same,
    ...{ quorum, confirm, escalateGroup },
    approverGroup: groups.length === 1 ? (groups[0] ?? "") : "",
    approverGroups: [...groups],
    ...(escalateAtMs === 0 ? {} : { escalateTime: timestampFromMs(escalateAtMs) }),
  };
}

export function toGrant(grant: Grant) {
  const { grantId, by, binding, argumentsJson: json, bounds, uses, used, untilMs, revokedBy } = grant;
  const { principal, tool } = binding;
  return {
    ...{ grantId, reviewer: by, principal, tool, argumentsJson: json, uses, used, revokedBy },
    bounds: [...bounds],
    expireTime: timestampFromMs(untilMs),
  };
}

export function toAbsence({ reviewer, untilMs, standIn }: Absence) {
  return { reviewer, standIn, until: timestampFromMs(untilMs) };
}

export function toDuration(ms: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(ms / 1_000)), nanos: Math.round(ms % 1_000) * 1_000_000 };
}

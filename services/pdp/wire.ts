import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { z } from "zod";
import {
  DecisionKind,
  type DecisionSchema,
  type FactsSchema,
  Impact,
  LoopVerdict,
} from "../../proto/interlock/v1/types_pb.ts";
import { JsonError, type JsonObject, parseJson } from "../shared/json.ts";
import { NAME, TOOL_NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Decision, Limits, Obligations, Outcome } from "./decide.ts";
import { EFFECTS, type Facts, LABELS, NOTHING_SPENT, ORIGINS, SPENT_UNITS } from "./facts.ts";
import { namesOnRun } from "./obligations.ts";

/** Protobuf to our own types and back. What is unspecified or unknown is refused, never defaulted. */

const MAX_ARGUMENTS_BYTES = 256 << 10;
/** 9999-12-31T23:59:59Z: the last second a date is written for with four digits. */
const MAX_SECONDS = 253_402_300_799n;

const nameRule = "use 1 to 64 letters, digits, '-' or '_', the first a letter or digit";
const name = z.string().regex(NAME, nameRule);
const nameOrEmpty = z.union([z.literal(""), name], nameRule);

function known<T extends string>(values: Readonly<Record<number, T>>) {
  return z.int().transform((value, context): T => {
    const found = values[value];
    if (found !== undefined) return found;
    context.addIssue(
      `${value} is not known; use ${Object.keys(values).join(", ")} (${Object.values(values).join(", ")})`,
    );
    return z.NEVER;
  });
}

const argumentsJson = z.string().transform((text, context): JsonObject => {
  try {
    if (Buffer.byteLength(text) > MAX_ARGUMENTS_BYTES) {
      throw new JsonError("", `It is longer than ${MAX_ARGUMENTS_BYTES} bytes; send less.`);
    }
    const value = parseJson(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
    throw new JsonError("", "It is not a JSON object; send one, {} when the tool takes nothing.");
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    context.addIssue(error.path === "" ? error.message : `${error.path}: ${error.message}`);
    return z.NEVER;
  }
});

const MAX_ANCESTORS = 64;
const amount = z.bigint().min(0n).max(BigInt(Number.MAX_SAFE_INTEGER), "it is beyond 2^53 - 1").transform(Number);

const factsSchema = z
  .object({
    principal: z.object({ tenant: name, agent: name, session: nameOrEmpty, user: nameOrEmpty }, "name who asks"),
    tool: z.object(
      {
        name: z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. orders.refund"),
        version: z.string().regex(/^\d+\.\d+\.\d+$/, "use major.minor.patch"),
        impact: known({ [Impact.LOW]: "low", [Impact.MEDIUM]: "medium", [Impact.HIGH]: "high" }),
        effects: z.array(z.enum(EFFECTS, `use ${EFFECTS.join(", ")}`)).max(EFFECTS.length),
        groups: z.array(z.string().min(1).max(64)).max(16),
      },
      "describe the tool",
    ),
    argumentsJson,
    labels: z.array(z.enum(LABELS, `use ${LABELS.join(", ")}`)).max(LABELS.length),
    loop: known({
      [LoopVerdict.CLEAR]: "clear",
      [LoopVerdict.REPEATING]: "repeating",
      [LoopVerdict.WARNED]: "warned",
      [LoopVerdict.ASK]: "ask",
      [LoopVerdict.STOPPED]: "stopped",
    }),
    ancestors: z
      .array(z.object({ tool: z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. code.run") }))
      .max(MAX_ANCESTORS, `send at most ${MAX_ANCESTORS}`),
    spent: z
      .array(z.object({ unit: z.enum(SPENT_UNITS, `use ${SPENT_UNITS.join(", ")}`), value: amount }))
      .max(SPENT_UNITS.length),
    origins: z.array(z.enum(ORIGINS, `use ${ORIGINS.join(", ")}`)).max(ORIGINS.length),
    foreign: z.array(z.string().max(1024)).max(100),
    time: z.object(
      { seconds: z.bigint().min(0n).max(MAX_SECONDS), nanos: z.int().min(0).max(999_999_999) },
      "give the time of the call",
    ),
  })
  .transform(
    ({ principal, tool, argumentsJson: args, labels, loop, time, ancestors, spent, origins, foreign }): Facts => ({
      ...principal,
      tool,
      args,
      labels,
      loop,
      origins,
      foreign,
      chain: ancestors.map((ancestor) => ancestor.tool),
      spent: { ...NOTHING_SPENT, ...Object.fromEntries(spent.map(({ unit, value }) => [unit, value])) },
      timeMs: Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6),
    }),
  );

/** @throws RpcError INVALID_ARGUMENT naming the field, as `facts.tool.impact`. */
export function parseFacts(
  field: string,
  message: MessageShape<typeof FactsSchema> | undefined,
  tenant: string,
): Facts {
  const parsed = factsSchema.safeParse({
    ...message,
    principal: message?.principal && { ...message.principal, tenant },
  });
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const path = (issue?.path ?? []).map((part) => String(part).replaceAll(/[A-Z]/g, (c) => `_${c.toLowerCase()}`));
  const at = [field, ...path].join(".");
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "FIELD_INVALID",
    field: at,
    message: `Change ${at}: ${issue?.message.replace(/\.$/, "")}.`,
    cause: parsed.error,
  });
}

const IMPACTS = { low: Impact.LOW, medium: Impact.MEDIUM, high: Impact.HIGH } as const;
const VERDICTS: Record<Facts["loop"], LoopVerdict> = {
  clear: LoopVerdict.CLEAR,
  repeating: LoopVerdict.REPEATING,
  warned: LoopVerdict.WARNED,
  ask: LoopVerdict.ASK,
  stopped: LoopVerdict.STOPPED,
};

export function toFacts(facts: Facts): MessageInitShape<typeof FactsSchema> {
  const {
    tenant,
    agent,
    session,
    user,
    tool,
    args,
    labels,
    loop,
    timeMs,
    chain,
    spent,
    origins = [],
    foreign = [],
  } = facts;
  return {
    principal: { tenant, agent, session, user },
    tool: { ...tool, impact: IMPACTS[tool.impact], effects: [...tool.effects], groups: [...tool.groups] },
    argumentsJson: JSON.stringify(args ?? {}),
    labels: [...labels],
    loop: VERDICTS[loop],
    time: timestampFromMs(timeMs),
    origins: [...origins],
    foreign: [...foreign],
    ancestors: chain.map((name) => ({ tool: name })),
    spent: Object.entries(spent).flatMap(([unit, value]) => (value === 0 ? [] : [{ unit, value: BigInt(value) }])),
  };
}

const KINDS: Readonly<Record<Outcome, DecisionKind>> = {
  allow: DecisionKind.ALLOW,
  deny: DecisionKind.DENY,
  require_approval: DecisionKind.REQUIRE_APPROVAL,
};

export const toKind = (outcome: Outcome): DecisionKind => KINDS[outcome];

export function toDecision(decision: Decision, revision: string): MessageInitShape<typeof DecisionSchema> {
  const { limits, approverGroup, quorum, approvalTtlMs } = decision.obligations;
  return {
    kind: KINDS[decision.outcome],
    reasons: [...decision.reasons],
    matchedRules: [...decision.matchedRules],
    obligations: {
      ...toMeasures(decision.obligations),
      ...(limits && { limits: toLimits(limits) }),
      approverGroup: approverGroup ?? "",
      quorum: quorum ?? 0,
      approvalTtlMs: BigInt(approvalTtlMs ?? 0),
    },
    revision,
  };
}

function toMeasures(obligations: Obligations) {
  const { egress, redact = [], notify = [] } = obligations;
  return {
    ...(egress && { egress: { rules: [...egress] } }),
    redact: [...redact],
    notify: [...notify],
    imposed: namesOnRun(obligations),
  };
}

function toLimits(limits: Limits) {
  return {
    wallMs: BigInt(limits.wallMs ?? 0),
    cpuMs: BigInt(limits.cpuMs ?? 0),
    memoryBytes: BigInt(limits.memoryBytes ?? 0),
    outputBytes: BigInt(limits.outputBytes ?? 0),
    pids: limits.pids ?? 0,
  };
}

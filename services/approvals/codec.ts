import { z } from "zod";
import type { Event } from "./approval.ts";
import { addApproval, initial, type State } from "./state.ts";

/** Events and state as the journal keeps them. Strict: what is not known is thrown at, never dropped. */

const text = z.string();
const timeMs = z.int();

const bindingSchema = z.strictObject({
  approvalId: text,
  ref: z.strictObject({ session: text, callId: text }),
  principal: z.strictObject({ tenant: text, agent: text, session: text, user: text }),
  tool: text,
  toolDigest: text,
  argumentsHash: text,
  approverGroup: text,
  quorum: z.int().min(1),
});

const bigintText = z.codec(z.string().regex(/^-?\d+$/), z.bigint(), {
  decode: (digits) => BigInt(digits),
  encode: (value) => value.toString(),
});

const newApproval = {
  binding: bindingSchema,
  shown: z.strictObject({
    toolDescription: text,
    argumentsJson: text,
    reasons: z.array(text),
    policyRevision: text,
    price: z.array(z.strictObject({ unit: text, value: bigintText })),
    labels: z.array(text),
  }),
  createdAtMs: timeMs,
  expiresAtMs: timeMs,
};

const voteSchema = z.strictObject({ reviewer: text, approve: z.boolean(), comment: text, timeMs });

const endingSchema = z.strictObject({
  end: z.enum(["approved", "rejected", "expired", "cancelled"]),
  by: z.array(text),
  reason: text,
  timeMs,
});

const eventSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("requested"), approval: z.strictObject(newApproval) }),
  z.strictObject({ kind: z.literal("voted"), approvalId: text, vote: voteSchema }),
  z.strictObject({
    kind: z.literal("resolved"),
    binding: bindingSchema,
    createdAtMs: timeMs,
    expiresAtMs: timeMs,
    votes: z.array(voteSchema),
    ending: endingSchema,
  }),
]);

const pendingSchema = z.strictObject({ ...newApproval, votes: z.array(voteSchema) });
const endedSchema = pendingSchema.extend({ ending: endingSchema });
const stateSchema = z.strictObject({ pending: z.array(pendingSchema), ended: z.array(endedSchema) });

export function eventToJson(event: Event): unknown {
  return z.encode(eventSchema, event as z.output<typeof eventSchema>);
}

export function eventFromJson(json: unknown): Event {
  return z.decode(eventSchema, json as z.input<typeof eventSchema>);
}

export function stateToJson({ pending, ended }: State): unknown {
  const plain = {
    pending: [...pending.values()].map(({ ending: _, ...approval }) => approval),
    ended: [...ended.values()],
  };
  return z.encode(stateSchema, plain as unknown as z.output<typeof stateSchema>);
}

export function stateFromJson(json: unknown): State {
  const { pending, ended } = z.decode(stateSchema, json as z.input<typeof stateSchema>);
  const state = initial();
  for (const approval of pending) addApproval(state, { ...approval, ending: undefined });
  for (const approval of ended) addApproval(state, approval);
  return state;
}

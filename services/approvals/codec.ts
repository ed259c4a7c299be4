import { z } from "zod";
import { type Event, IMPACTS } from "./approval.ts";
import { addApproval, initial, type State } from "./state.ts";

/** Events and state as the journal keeps them. Strict: what is not known is thrown at, never dropped. */

const text = z.string();
const timeMs = z.int();
const texts = z.array(text);

const bigintText = z.codec(z.string().regex(/^-?\d+$/), z.bigint(), {
  decode: (digits) => BigInt(digits),
  encode: (value) => value.toString(),
});

const binding = z.strictObject({
  approvalId: text,
  ref: z.strictObject({ session: text, callId: text }),
  principal: z.strictObject({ tenant: text, agent: text, session: text, user: text }),
  tool: text,
  toolDigest: text,
  argumentsHash: text,
  policyRevision: text,
  need: z.strictObject({
    groups: texts,
    quorum: z.int().min(1),
    confirm: z.boolean(),
    escalateGroup: text,
    escalateAtMs: timeMs,
  }),
});

const newApproval = {
  binding,
  shown: z.strictObject({
    sentence: text,
    toolDescription: text,
    impact: z.enum(IMPACTS),
    effects: texts,
    argumentsJson: text,
    firstArguments: texts,
    reasons: texts,
    rules: texts,
    price: z.array(z.strictObject({ unit: text, value: bigintText })),
    budgets: z.array(
      z.strictObject({
        name: text,
        scope: text,
        subject: text,
        unit: text,
        limit: bigintText,
        available: bigintText,
      }),
    ),
    labels: texts,
    steps: z.array(z.strictObject({ tool: text, outcome: text, timeMs })),
  }),
  createdAtMs: timeMs,
  expiresAtMs: timeMs,
};

const vote = z.strictObject({
  reviewer: text,
  as: text,
  groups: texts,
  approve: z.boolean(),
  argumentsHash: text,
  comment: text,
  hasty: z.boolean(),
  timeMs,
});

const edit = z.strictObject({ reviewer: text, argumentsJson: text, argumentsHash: text, timeMs });

const question = z.strictObject({
  questionId: text,
  reviewer: text,
  text,
  timeMs,
  answer: z.strictObject({ text, timeMs }).optional(),
});

const ending = z.strictObject({
  end: z.enum(["approved", "rejected", "expired", "cancelled"]),
  by: texts,
  reason: text,
  grantId: text,
  timeMs,
});

const grant = z.strictObject({
  grantId: text,
  by: text,
  binding,
  argumentsJson: text,
  argumentsHash: text,
  bounds: z.array(z.strictObject({ argument: text, max: z.number() })),
  labels: texts,
  uses: z.int(),
  used: z.int(),
  untilMs: timeMs,
  revokedBy: text,
});

const absence = z.strictObject({ reviewer: text, untilMs: timeMs, standIn: text });
const told = z.strictObject({ address: text, shows: z.int(), reminders: z.int(), timeMs });

const eventSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("requested"), approval: z.strictObject(newApproval) }),
  z.strictObject({ kind: z.literal("joined"), approvalId: text, binding }),
  z.strictObject({ kind: z.literal("voted"), approvalId: text, vote }),
  z.strictObject({ kind: z.literal("edited"), approvalId: text, edit }),
  z.strictObject({ kind: z.literal("asked"), approvalId: text, question }),
  z.strictObject({ kind: z.literal("answered"), approvalId: text, questionId: text, text, timeMs }),
  z.strictObject({
    kind: z.literal("resolved"),
    binding,
    createdAtMs: timeMs,
    expiresAtMs: timeMs,
    votes: z.array(vote),
    edit: edit.optional(),
    ending,
  }),
  z.strictObject({ kind: z.literal("granted"), grant }),
  z.strictObject({ kind: z.literal("revoked"), grantId: text, by: text, timeMs }),
  z.strictObject({ kind: z.literal("absent"), absence }),
  z.strictObject({ kind: z.literal("claimed"), key: text, attempt: text, untilMs: timeMs }),
  z.strictObject({ kind: z.literal("told"), approvalId: text, channel: text, told }),
]);

const approval = z.strictObject({
  ...newApproval,
  votes: z.array(vote),
  edit: edit.optional(),
  questions: z.array(question),
  joined: z.array(binding),
  version: z.int(),
  ending: ending.optional(),
});

const stateSchema = z.strictObject({
  approvals: z.array(approval),
  alike: z.array(z.tuple([text, text])),
  grants: z.array(grant),
  absences: z.array(absence),
  answers: z.array(z.tuple([text, z.array(timeMs)])),
  claims: z.array(z.tuple([text, z.strictObject({ attempt: text, untilMs: timeMs })])),
  told: z.array(z.tuple([text, z.array(z.tuple([text, told]))])),
});

export function eventToJson(event: Event): unknown {
  return z.encode(eventSchema, event as unknown as z.output<typeof eventSchema>);
}

export function eventFromJson(json: unknown): Event {
  return filled(z.decode(eventSchema, json as z.input<typeof eventSchema>)) as Event;
}

export function stateToJson(state: State): unknown {
  const { pending, ended, grants, absences, answers, claims } = state;
  const plain = {
    approvals: [...ended.values(), ...pending.values()],
    alike: [...state.alike],
    grants: [...grants.values()],
    absences: [...absences.values()],
    answers: [...answers],
    claims: [...claims],
    told: [...state.told].map(([id, channels]) => [id, [...channels]]),
  };
  return z.encode(stateSchema, plain as unknown as z.output<typeof stateSchema>);
}

export function stateFromJson(json: unknown): State {
  const plain = z.decode(stateSchema, json as z.input<typeof stateSchema>);
  const state = initial();
  for (const one of plain.approvals) addApproval(state, filled(one) as Parameters<typeof addApproval>[1]);
  state.alike.clear();
  for (const [key, id] of plain.alike) state.alike.set(key, id);
  for (const one of plain.grants) state.grants.set(one.grantId, one);
  for (const one of plain.absences) state.absences.set(one.reviewer, one);
  for (const [reviewer, times] of plain.answers) state.answers.set(reviewer, times);
  for (const [key, claim] of plain.claims) state.claims.set(key, claim);
  for (const [id, channels] of plain.told) state.told.set(id, new Map(channels));
  return state;
}

/** JSON has no undefined; inside, what is absent is said. */
function filled(value: object): unknown {
  if ("kind" in value) {
    if (value.kind === "resolved") return { edit: undefined, ...value };
    if (value.kind === "asked" && "question" in value) {
      return { ...value, question: { answer: undefined, ...(value.question as object) } };
    }
    return value;
  }
  const { questions } = value as { questions: readonly object[] };
  return {
    edit: undefined,
    ending: undefined,
    ...value,
    questions: questions.map((one) => ({ answer: undefined, ...one })),
  };
}

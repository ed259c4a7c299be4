import { createHmac, timingSafeEqual } from "node:crypto";
import { z } from "zod";

/** What Slack sends when somebody presses a button or sends a modal: proved first, then parsed. */

/** What a button carries: which approval, and what its reader saw. */
export type Ticket = { readonly id: string; readonly hash: string; readonly calls: number };

const ticketSchema = z.strictObject({
  id: z.string().regex(/^[0-9a-f-]{36}$/),
  hash: z.string().regex(/^[0-9a-f]{64}$/),
  calls: z.int().min(1).max(1_000),
});

export function toValue(ticket: Ticket): string {
  return JSON.stringify(ticket);
}

export function parseTicket(value: string): Ticket | undefined {
  try {
    return ticketSchema.parse(JSON.parse(value));
  } catch {
    return undefined;
  }
}

/** Slack's own bound on how old a request may be. */
const MAX_AGE_S = 300;

export type Proof = "good" | "stale" | "forged";

/** Slack's v0 scheme (api.slack.com/authentication/verifying-requests-from-slack), over the raw bytes, in constant time. */
export function proofOf(
  secret: string,
  headers: { readonly timestamp: string | undefined; readonly signature: string | undefined },
  body: Buffer,
  nowMs: number,
): Proof {
  const { timestamp = "", signature = "" } = headers;
  if (!/^\d{1,12}$/.test(timestamp) || !/^v0=[0-9a-f]{64}$/.test(signature)) return "forged";
  const right = createHmac("sha256", secret).update(`v0:${timestamp}:`).update(body).digest();
  if (!timingSafeEqual(right, Buffer.from(signature.slice(3), "hex"))) return "forged";
  return Math.abs(nowMs / 1_000 - Number(timestamp)) > MAX_AGE_S ? "stale" : "good";
}

const id = z.string().min(1).max(64);
const common = {
  api_app_id: id.optional(),
  /** null where the app is installed for the whole organisation. */
  team: z.object({ id }).nullish(),
  enterprise: z.object({ id }).nullish(),
  user: z.object({ id }),
  trigger_id: z.string().max(255).optional(),
};

const payloadSchema = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("block_actions"),
    ...common,
    channel: z.object({ id }).optional(),
    actions: z.array(z.object({ action_id: z.string().max(255), value: z.string().max(2_000).optional() })).length(1),
  }),
  z.object({
    type: z.literal("view_submission"),
    ...common,
    view: z.object({
      callback_id: z.string().max(255),
      private_metadata: z.string().max(3_000),
      state: z.object({
        values: z.record(z.string(), z.record(z.string(), z.object({ value: z.string().nullish() }))),
      }),
    }),
  }),
]);

export type Payload = z.output<typeof payloadSchema>;

/** undefined: it is none. */
export function parsePayload(body: Buffer): Payload | undefined {
  const text = new URLSearchParams(body.toString("utf8")).get("payload");
  if (text === null) return undefined;
  try {
    return payloadSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

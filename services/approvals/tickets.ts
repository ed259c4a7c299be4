import { createHmac, timingSafeEqual } from "node:crypto";
import { z } from "zod";

/** Signed, short-lived tokens of this service's own: login links, page sessions, links to one approval, form tokens. */

export type Ticket =
  /** Logs this person in, once. */
  | { readonly kind: "login"; readonly tenant: string; readonly name: string; readonly id: string; readonly to: string }
  /** A person's session on the page. */
  | { readonly kind: "session"; readonly tenant: string; readonly name: string; readonly id: string }
  /** Shows where to look; gives no right to anything. */
  | { readonly kind: "link"; readonly tenant: string; readonly approvalId: string }
  /** What a login at the identity provider began with. */
  | {
      readonly kind: "oidc";
      readonly state: string;
      readonly nonce: string;
      readonly verifier: string;
      readonly to: string;
    }
  /** Lets a form of this session be sent. */
  | { readonly kind: "form"; readonly id: string };

const ticketSchema = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("login"), tenant: z.string(), name: z.string(), id: z.string(), to: z.string() }),
  z.strictObject({ kind: z.literal("session"), tenant: z.string(), name: z.string(), id: z.string() }),
  z.strictObject({ kind: z.literal("link"), tenant: z.string(), approvalId: z.string() }),
  z.strictObject({
    kind: z.literal("oidc"),
    state: z.string(),
    nonce: z.string(),
    verifier: z.string(),
    to: z.string(),
  }),
  z.strictObject({ kind: z.literal("form"), id: z.string() }),
]);

const sealed = z.strictObject({ ticket: ticketSchema, untilMs: z.int() });

export type Sealed = { readonly ticket: Ticket; readonly untilMs: number };

/** HMAC-SHA-256 under one key; the payload is readable, and worth nothing when changed. */
export class Tickets {
  readonly #key: Buffer;
  readonly #now: () => number;

  /** @throws Error when the key has less than 32 bytes. */
  constructor(key: Buffer, now: () => number) {
    if (key.length < 32) throw new Error("a key of at least 32 bytes is wanted");
    this.#key = key;
    this.#now = now;
  }

  seal(ticket: Ticket, lifeMs: number): string {
    const payload = Buffer.from(JSON.stringify({ ticket, untilMs: this.#now() + lifeMs })).toString("base64url");
    return `${payload}.${this.#mac(payload).toString("base64url")}`;
  }

  /** undefined: forged, over, or of another kind. */
  open<K extends Ticket["kind"]>(
    token: string,
    kind: K,
  ): { ticket: Ticket & { kind: K }; untilMs: number } | undefined {
    const [payload = "", mac = "", ...more] = token.split(".");
    const given = Buffer.from(mac, "base64url");
    const right = this.#mac(payload);
    if (more.length > 0 || given.length !== right.length || !timingSafeEqual(given, right)) return undefined;
    const { ticket, untilMs } = sealed.parse(JSON.parse(Buffer.from(payload, "base64url").toString("utf8")));
    if (ticket.kind !== kind || untilMs <= this.#now()) return undefined;
    return { ticket: ticket as Ticket & { kind: K }, untilMs };
  }

  #mac(payload: string): Buffer {
    return createHmac("sha256", this.#key).update(`interlock/ticket/v1\0${payload}`).digest();
  }
}

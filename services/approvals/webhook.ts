import { createHmac } from "node:crypto";
import type { Approval } from "./approval.ts";
import { Busy, type Channel, type Message } from "./channel.ts";
import { NOTICE_PATIENCE_MS } from "./notice.ts";
import type { Entry } from "./people.ts";
import { DIGEST } from "./teller.ts";

/**
 * A signed webhook, in the form of the Standard Webhooks specification 1.0: what Teams, e-mail or a pager needs is made
 * of it on the other side. It tells; people answer on the page.
 */
export type WebhookOptions = {
  readonly tenant: string;
  readonly name: string;
  readonly url: string;
  readonly secret: Buffer;
  readonly digestMs: number;
  /** Makes a link that logs a person in: only where the other side can be trusted with it. */
  readonly loginLink: ((person: Entry, approvalId: string) => string) | undefined;
  readonly now: () => number;
};

const PATIENCE_MS = 10_000;
const BUSY_MS = 5_000;

export function webhookChannel(options: WebhookOptions): Channel {
  const { tenant, name, digestMs } = options;
  const send = (type: string, message: Message, more: object = {}) =>
    post(options, [type, ...keyOf(message), JSON.stringify(more)], type, bodyOf(message, options, more));
  return {
    name: `webhook:${name}`,
    ...{ tenant, digestMs },
    wants: () => true,
    tell: async (message) => {
      await send(message.address === "" ? "approval.requested" : `approval.${happened(message.approval)}`, message);
      return "sent";
    },
    remind: (message, times) => send("approval.reminder", message, { times }),
    digest: async (messages) => {
      const approvals = messages.map((message) => bodyOf(message, options, {}));
      await post(options, ["approval.digest", ...messages.flatMap(keyOf)], "approval.digest", { approvals });
      return `${DIGEST}sent`;
    },
    notice: ({ callId, principal, tool, reasons, rules }) =>
      post(
        options,
        ["call.notice", callId, name],
        "call.notice",
        { call_id: callId, principal, tool, reasons, rules },
        NOTICE_PATIENCE_MS,
      ),
  };
}

function happened({ ending }: Approval): string {
  return ending?.end ?? "changed";
}

/** What of an approval is told. */
function keyOf({ approval }: Message): string[] {
  return [approval.binding.approvalId, String(approval.version)];
}

function bodyOf({ approval, card, link, people }: Message, { loginLink }: WebhookOptions, more: object): object {
  const { binding, expiresAtMs, ending, version } = approval;
  const { approvalId, principal, tool, need } = binding;
  return {
    ...more,
    approval_id: approvalId,
    version,
    state: ending?.end ?? "pending",
    card,
    ...{ principal, tool, need, link },
    expires_at: new Date(expiresAtMs).toISOString(),
    people: people.map((person) => ({
      name: person.name,
      email: person.email,
      ...(loginLink === undefined ? {} : { link: loginLink(person, approvalId) }),
    })),
  };
}

/** `key` makes the message's id: what is sent again has it again, so that the other side knows it. */
async function post(
  { url, secret, now }: WebhookOptions,
  key: readonly string[],
  type: string,
  data: object,
  patienceMs = PATIENCE_MS,
): Promise<void> {
  const nowMs = now();
  const body = JSON.stringify({ type, timestamp: new Date(nowMs).toISOString(), data });
  const id = `msg_${createHmac("sha256", secret).update(JSON.stringify(key)).digest("base64url").slice(0, 27)}`;
  const seconds = Math.floor(nowMs / 1_000);
  const signature = createHmac("sha256", secret).update(`${id}.${seconds}.${body}`).digest("base64");
  const response = await fetch(url, {
    method: "POST",
    redirect: "error",
    signal: AbortSignal.timeout(patienceMs),
    headers: {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": String(seconds),
      "webhook-signature": `v1,${signature}`,
    },
    body,
  });
  await response.body?.cancel();
  if (response.status === 429 || response.status === 503) {
    throw new Busy(Math.max(0, Number(response.headers.get("retry-after") ?? 0)) * 1_000 || BUSY_MS);
  }
  if (!response.ok) throw new Error(`the webhook answered ${response.status}`);
}

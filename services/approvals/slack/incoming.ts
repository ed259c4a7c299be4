import type { KnownBlock } from "@slack/types";
import { Busy, type Channel, type Message } from "../channel.ts";
import { NOTICE_PATIENCE_MS } from "../notice.ts";
import { DIGEST } from "../teller.ts";
import { digestBlocks, fallbackText, linkBlocks } from "./blocks.ts";

/**
 * Slack without an app: an incoming webhook. It takes messages and nothing more, so each says what waits and has a link
 * to the page, and none is ever brought up to date: what changes is told where people answer.
 */
export type IncomingOptions = {
  readonly tenant: string;
  readonly name: string;
  readonly url: string;
  readonly digestMs: number;
};

const PATIENCE_MS = 10_000;
/** Slack's bound on a section's text, characters. */
const MAX_SECTION = 3_000;

export function incomingChannel({ tenant, name, url, digestMs }: IncomingOptions): Channel {
  return {
    name: `webhook:${name}`,
    ...{ tenant, digestMs },
    wants: () => true,
    tell: async ({ card, link, address }: Message) => {
      if (address === "") await post(url, { text: fallbackText(card), blocks: linkBlocks(card, link) });
      return "sent";
    },
    remind: async ({ card, link }) => {
      const text = `Still waiting, ${card.timeLeft} left: ${fallbackText(card)}`;
      await post(url, { text, blocks: linkBlocks(card, link) });
    },
    digest: async (messages) => {
      await post(url, { text: `${messages.length} approvals of low risk wait.`, blocks: digestBlocks(messages) });
      return `${DIGEST}sent`;
    },
    notice: async ({ principal: { agent, session, user }, tool, reasons }) => {
      const who = user === "" ? `Agent ${agent}` : `Agent ${agent}, for ${user},`;
      const text = `${who} calls ${tool} in session ${session}. ${reasons.join(" ")}`;
      const plain: KnownBlock = { type: "section", text: { type: "plain_text", text: text.slice(0, MAX_SECTION) } };
      await post(url, { text: `${who} calls ${tool}.`, blocks: [plain] }, NOTICE_PATIENCE_MS);
    },
  };
}

async function post(url: string, message: object, patienceMs = PATIENCE_MS): Promise<void> {
  const response = await fetch(url, {
    method: "POST",
    redirect: "error",
    signal: AbortSignal.timeout(patienceMs),
    headers: { "content-type": "application/json" },
    body: JSON.stringify(message),
  });
  await response.body?.cancel();
  if (response.status === 429) throw new Busy(Math.max(1, Number(response.headers.get("retry-after") ?? 1)) * 1_000);
  if (!response.ok) throw new Error(`Slack's webhook answered ${response.status}`);
}

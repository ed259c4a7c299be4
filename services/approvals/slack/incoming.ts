import { Busy, type Channel, type Message } from "../channel.ts";
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
  };
}

async function post(url: string, message: object): Promise<void> {
  const response = await fetch(url, {
    method: "POST",
    redirect: "error",
    signal: AbortSignal.timeout(PATIENCE_MS),
    headers: { "content-type": "application/json" },
    body: JSON.stringify(message),
  });
  await response.body?.cancel();
  if (response.status === 429) throw new Busy(Math.max(1, Number(response.headers.get("retry-after") ?? 1)) * 1_000);
  if (!response.ok) throw new Error(`Slack's webhook answered ${response.status}`);
}

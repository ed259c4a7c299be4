import { type ChatPostMessageResponse, ErrorCode, WebClient } from "@slack/web-api";
import type { Approval } from "../approval.ts";
import { Busy, type Channel, type Message } from "../channel.ts";
import { DIGEST } from "../teller.ts";
import { digestBlocks, fallbackText, messageBlocks } from "./blocks.ts";

/** One Slack workspace or organisation, and the conversations in it that approvals are told in. */
export type WorkspaceOptions = {
  readonly tenant: string;
  /** T…: whose people may answer. */
  readonly team: string;
  /** E…: set where the app is installed for an Enterprise Grid organisation; its people may answer from any workspace. */
  readonly enterprise: string | undefined;
  readonly appId: string | undefined;
  /** Where approvals go whose groups have no conversation of their own. */
  readonly conversation: string;
  readonly conversations: Readonly<Record<string, string>>;
  readonly botToken: string;
  readonly signingSecret: string;
  /** Slack's, unless it is stood in for. */
  readonly apiUrl: string | undefined;
  readonly digestMs: number;
};

const PATIENCE_MS = 10_000;

export function webClient({ botToken, apiUrl }: WorkspaceOptions): WebClient {
  return new WebClient(botToken, {
    ...(apiUrl === undefined ? {} : { slackApiUrl: apiUrl }),
    // What is limited or fails is tried again by the teller, which also outlives this process.
    rejectRateLimitedCalls: true,
    retryConfig: { retries: 0 },
    timeout: PATIENCE_MS,
    teamId: undefined as never,
  });
}

/** Channels in the words of teller.ts: one for each conversation. */
export function slackChannels(options: WorkspaceOptions, client: WebClient): readonly Channel[] {
  const { conversation, conversations } = options;
  return [...new Set([conversation, ...Object.values(conversations)])].map((id) => slackChannel(options, client, id));
}

function slackChannel(options: WorkspaceOptions, client: WebClient, conversation: string): Channel {
  const { tenant, team, digestMs } = options;
  return {
    name: `slack:${team}:${conversation}`,
    ...{ tenant, digestMs },
    wants: (approval, nowMs) => conversationsOf(options, approval, nowMs).includes(conversation),
    tell: (message) => limited(() => tell(client, conversation, message)),
    remind: (message) => limited(() => remind(client, message)),
    digest: (messages) =>
      limited(async () => {
        const text = `${messages.length} approvals of low risk wait.`;
        const posted = await client.chat.postMessage({ channel: conversation, text, blocks: digestBlocks(messages) });
        return DIGEST + addressOf(posted);
      }),
  };
}

function conversationsOf(options: WorkspaceOptions, { binding }: Approval, nowMs: number): readonly string[] {
  const { groups, escalateGroup, escalateAtMs } = binding.need;
  const asked = escalateGroup !== "" && escalateAtMs <= nowMs ? [...groups, escalateGroup] : groups;
  const of = (group: string): string =>
    Object.hasOwn(options.conversations, group) ? (options.conversations[group] ?? "") : options.conversation;
  return asked.length === 0 ? [options.conversation] : asked.map(of);
}

/** Channel and ts are kept, never the response_url: that one dies after half an hour. */
async function tell(client: WebClient, conversation: string, message: Message): Promise<string> {
  const { approval, card, link, address } = message;
  const content = { text: fallbackText(card), blocks: messageBlocks(approval, card, link) };
  if (address === "") {
    const posted = await client.chat.postMessage({
      channel: conversation,
      ...content,
      unfurl_links: false,
      unfurl_media: false,
    });
    return addressOf(posted);
  }
  const [channel = "", ts = ""] = address.split("/");
  try {
    await client.chat.update({ channel, ts, ...content });
  } catch (error) {
    // Somebody has deleted the message: there is nothing left to bring up to date.
    if (!GONE.includes(slackError(error))) throw error;
  }
  return address;
}

const GONE = ["message_not_found", "channel_not_found", "cant_update_message", "is_inactive"];

async function remind(client: WebClient, { address, people, card }: Message): Promise<void> {
  const [channel = "", ts = ""] = address.split("/");
  const names = people.flatMap(({ slack }) => (slack === undefined ? [] : [`<@${slack}>`])).slice(0, 20);
  const text = `${names.join(" ")} Still waiting, ${card.timeLeft} left: no answer is a no.`.trim();
  await client.chat.postMessage({ channel, thread_ts: ts, reply_broadcast: true, text });
}

function addressOf({ channel, ts }: ChatPostMessageResponse): string {
  if (channel === undefined || ts === undefined) throw new Error("Slack answered without saying where the message is");
  return `${channel}/${ts}`;
}

/** @throws Busy for as long as Slack asks for. */
async function limited<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const found = error as { code?: string; retryAfter?: number };
    if (found.code === ErrorCode.RateLimitedError) throw new Busy(Math.max(1, found.retryAfter ?? 1) * 1_000);
    throw error;
  }
}

function slackError(error: unknown): string {
  return String((error as { data?: { error?: unknown } }).data?.error ?? "");
}

import { randomBytes } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../shared/config.ts";
import { authenticator } from "../shared/identity.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { keysFile, readKeys } from "../shared/state-dir.ts";
import { FileProblems } from "../shared/yaml-file.ts";
import type { Channel } from "./channel.ts";
import type { CheckEdit, Desk } from "./desk.ts";
import { giveNotice } from "./notice.ts";
import { authzen } from "./page/authzen.ts";
import { type Page, startPage } from "./page/server.ts";
import { openPeople, type People } from "./people.ts";
import { type Approvals, type LoginLink, startApprovals } from "./service.ts";
import { Endpoint } from "./slack/endpoint.ts";
import { incomingChannel } from "./slack/incoming.ts";
import { slackChannels, type WorkspaceOptions, webClient } from "./slack/workspace.ts";
import { Teller } from "./teller.ts";
import { webhookChannel } from "./webhook.ts";

/** The approval service with all its ways to people: the page, Slack, webhooks, as they are configured. */

export type HostOptions = {
  readonly journal: Journal;
  readonly checkEdit: CheckEdit;
  readonly now: () => number;
  readonly newId: () => string;
  readonly log: Log;
};

export type Hosted = Pick<Approvals, "handlers"> & { readonly pageUrl: string | undefined } & AsyncDisposable;

/** @throws FileProblems for what an operator wrote wrong, Error for a port in use. */
export async function hostApprovals(config: Config, options: HostOptions): Promise<Hosted> {
  const stack = new AsyncDisposableStack();
  try {
    const { log, now } = options;
    const people = openPeople({ people: config.approvals.people, keys: keysFile(config) }, log);
    let page: Page | undefined;
    const loginLink: LoginLink = (person, approvalId) => {
      if (page !== undefined) return page.login.linkFor(person, approvalId);
      throw noPage();
    };
    let channels: readonly Channel[] = [];
    const approvals = stack.use(
      await startApprovals({ ...options, people, loginLink, notice: (notice) => giveNotice(channels, notice) }),
    );
    page = await openPage(config, approvals.desk, people, options);
    if (page !== undefined) {
      stack.use(page);
      const opened = openChannels(config, { desk: approvals.desk, people, page, now, log });
      stack.use(opened);
      channels = opened.channels;
    }
    return {
      handlers: approvals.handlers,
      pageUrl: page?.url,
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

async function openPage(
  config: Config,
  desk: Desk,
  people: People,
  { now, log }: HostOptions,
): Promise<Page | undefined> {
  const { listen, public_url: publicUrl, oidc } = config.approvals;
  if (listen === "off") return undefined;
  const page = await startPage({
    ...{ desk, people, now, log, publicUrl },
    listen: listen ?? portAfter(config.listen),
    ticketKey: pageKey(config, log),
    oidc: oidc && {
      issuer: oidc.issuer,
      clientId: oidc.client_id,
      clientSecret: readSecret(oidc.client_secret_file),
      insecure: oidc.insecure,
    },
  });
  const authenticate = authenticator(readKeys(config));
  page.extend(authzen({ desk, authenticate, publicUrl: page.url }));
  return page;
}

type Parts = {
  readonly desk: Desk;
  readonly people: People;
  readonly page: Page;
  readonly now: () => number;
  readonly log: Log;
};

type Opened = { readonly channels: readonly Channel[] } & AsyncDisposable;

function openChannels(config: Config, { desk, people, page, now, log }: Parts): Opened {
  const { slack, webhooks, remind_minutes: remindMinutes } = config.approvals;
  const workspaces = slack.map((one) => {
    const options: WorkspaceOptions = {
      ...{ tenant: one.tenant, team: one.team, enterprise: one.enterprise, appId: one.app_id },
      conversation: one.channel,
      conversations: one.channels,
      botToken: readSecret(one.bot_token_file),
      signingSecret: readSecret(one.signing_secret_file),
      apiUrl: one.api_url,
      digestMs: one.digest_minutes * 60_000,
    };
    return { options, client: webClient(options) };
  });
  const channels: Channel[] = workspaces.flatMap(({ options, client }) => slackChannels(options, client));
  for (const one of webhooks) {
    const common = {
      tenant: one.tenant,
      name: one.name,
      url: readSecret(one.url_file),
      digestMs: one.digest_minutes * 60_000,
    };
    if (one.kind === "slack") {
      channels.push(incomingChannel(common));
      continue;
    }
    const secret = Buffer.from(readSecret(one.secret_file ?? "").replace(/^whsec_/, ""), "base64");
    if (secret.length < 24) throw unusable(one.secret_file ?? "secret_file", "it needs at least 24 bytes, base64");
    const link = (person: { tenant: string; name: string }, id: string) => page.login.linkFor(person, id).url;
    channels.push(webhookChannel({ ...common, secret, now, loginLink: one.login_links ? link : undefined }));
  }
  if (workspaces.length > 0) {
    const endpoint = new Endpoint({ desk, people, workspaces, now, log });
    page.extend((request) => endpoint.handle(request));
  }
  const stack = new AsyncDisposableStack();
  if (channels.length > 0) {
    const linkTo = ({
      binding,
      expiresAtMs,
    }: {
      binding: { principal: { tenant: string }; approvalId: string };
      expiresAtMs: number;
    }) => page.login.placeOf(binding.principal.tenant, binding.approvalId, Math.max(60_000, expiresAtMs - now()));
    const remindMs = remindMinutes * 60_000;
    stack.use(new Teller({ desk, people, channels, linkTo, remindMs, now, log }));
  }
  return { channels, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** The same for every replica, or a login at one is none at another. */
function pageKey(config: Config, log: Log): Buffer {
  const file = config.approvals.page_key ?? join(config.state, "page.key");
  if (existsSync(file)) {
    const key = Buffer.from(readSecret(file), "base64");
    if (key.length >= 32) return key;
    throw unusable(file, "it needs 32 random bytes, base64");
  }
  if (config.approvals.page_key !== undefined) throw unusable(file, "it is not there");
  log.warn({ file }, "page.key_missing: logins end when this process does");
  return randomBytes(32);
}

/** Port 0 stays: one that is free is chosen. */
function portAfter(listen: string): string {
  const at = listen.lastIndexOf(":");
  const port = Number(listen.slice(at + 1));
  return `${listen.slice(0, at)}:${port === 0 ? 0 : port + 1}`;
}

function readSecret(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch (error) {
    throw unusable(file, error instanceof Error ? error.message : String(error));
  }
}

function unusable(file: string, why: string): FileProblems {
  return new FileProblems([{ file, line: undefined, field: "", message: `It cannot be used: ${why}.` }]);
}

function noPage(): RpcError {
  return new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "PAGE_OFF",
    message: "There is no reviewers' page here; an operator has set approvals.listen to off. Use the command line.",
  });
}

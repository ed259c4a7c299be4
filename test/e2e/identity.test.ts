import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ApprovalState } from "../../proto/interlock/v1/approvals_pb.ts";
import { type Clients, connectTo } from "../support/clients.ts";
import { type Running, startEmbedded } from "../support/interlock.ts";
import { Issuer } from "../support/issuer.ts";
import { SlackStandIn, signed } from "../support/slack.ts";

/** Who people are by somebody else's word: an OpenID Connect issuer, and Slack for a whole organisation. */

const SECRET = "8f742231b10e8888abcd99yyyzzz85a5";
const folder = mkdtempSync(join(tmpdir(), "interlock-identity-"));
const issuer = new Issuer();
const slack = new SlackStandIn();
let running: Running;
let clients: Clients;

beforeAll(async () => {
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const people = file(
    "people.yaml",
    `people:
  - { tenant: demo, name: lea, groups: [support-leads], oidc: sub-lea, email: lea@example.com, slack: ULEA1 }
  - { tenant: demo, name: max, groups: [support-leads], email: max@example.com }
`,
  );
  const oidc = { issuer: await issuer.start(), client_id: issuer.clientId, insecure: true };
  const workspace = { tenant: "demo", team: "TTEAM1", enterprise: "EORG1", channel: "CDEFAULT1" };
  running = await startEmbedded({
    config: {
      approvals: {
        people,
        oidc: { ...oidc, client_secret_file: file("client", issuer.clientSecret) },
        slack: [
          {
            ...{ ...workspace, api_url: await slack.start() },
            bot_token_file: file("token", "xoxb-stand-in"),
            signing_secret_file: file("signing", SECRET),
          },
        ],
      },
    },
  });
  clients = connectTo(running);
}, 60_000);

afterAll(async () => {
  await clients?.[Symbol.asyncDispose]();
  await running?.[Symbol.asyncDispose]();
  await issuer[Symbol.asyncDispose]();
  await slack[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

type Way = { readonly callback: URL; readonly cookie: string };

/** A browser's way to the issuer and back to the callback. */
async function begin(to = "/history"): Promise<Way> {
  const begun = await fetch(`${running.page}/login/oidc?to=${to}`, { redirect: "manual" });
  const cookie = begun.headers.getSetCookie()[0]?.split(";")[0] ?? "";
  const there = await fetch(begun.headers.get("location") ?? "", { redirect: "manual" });
  return { callback: new URL(there.headers.get("location") ?? ""), cookie };
}

async function end({ callback, cookie }: Way) {
  const response = await fetch(callback, { redirect: "manual", headers: { cookie } });
  const session = response.headers.getSetCookie()[0]?.split(";")[0] ?? "";
  return { status: response.status, location: response.headers.get("location"), session, text: await response.text() };
}

async function nameOf(session: string): Promise<string> {
  const html = await (await fetch(running.page, { headers: { cookie: session } })).text();
  return ["lea", "max"].find((name) => html.includes(`>${name}<`)) ?? "";
}

describe("a login at the identity provider", () => {
  test.each([
    ["by subject", { sub: "sub-lea" }, "lea"],
    ["by an e-mail it has verified", { sub: "sub-max", email: "Max@example.com", email_verified: true }, "max"],
  ])("%s is that person's, and goes on to where they wanted", async (_, user, name) => {
    issuer.user = user;
    const ended = await end(await begin());
    expect(ended).toMatchObject({ status: 303, location: "/history" });
    expect(await nameOf(ended.session)).toBe(name);
  });

  const lea = { sub: "sub-lea" };
  test.each<[string, user: Record<string, unknown>, change?: (way: Way) => Promise<Way> | Way]>([
    ["somebody unknown", { sub: "sub-eve" }],
    ["an e-mail nobody has verified", { sub: "sub-max", email: "max@example.com", email_verified: false }],
    ["a verified e-mail of somebody who has a subject", { sub: "x", email: "lea@example.com", email_verified: true }],
    ["a token of another issuer", { ...lea, iss: "http://127.0.0.1:1" }],
    ["a token for another client", { ...lea, aud: "other" }],
    ["a token of another login", { ...lea, nonce: "n" }],
    ["a token that is over", { ...lea, exp: 1_000 }],
    ["a callback without its beginning", lea, (way) => ({ ...way, cookie: "" })],
    ["another's code in one's own login", lea, async (way) => ({ ...way, cookie: (await begin()).cookie })],
    ["another state", lea, ({ callback, cookie }) => ({ callback: withParam(callback, "state", "s"), cookie })],
    ["a made-up code", lea, ({ callback, cookie }) => ({ callback: withParam(callback, "code", "c"), cookie })],
    [
      "a code that was used",
      lea,
      async (way) => {
        await end(way);
        return way;
      },
    ],
  ])("%s logs nobody in", async (_, user, change = (way) => way) => {
    issuer.user = user;
    const ended = await end(await change(await begin()));
    expect(ended).toMatchObject({ status: 403, location: null, session: "" });
  });

  test("goes on to no other site", async () => {
    issuer.user = lea;
    expect(await end(await begin("//evil.example"))).toMatchObject({ status: 303, location: "/" });
  });
});

function withParam(url: URL, name: string, value: string): URL {
  const changed = new URL(url);
  changed.searchParams.set(name, value);
  return changed;
}

let sessions = 0;
/** A click from some workspace; answers with what has become of the approval. */
async function click(from: { team: { id: string } | null; enterprise?: { id: string } | null }) {
  const argumentsJson = JSON.stringify({ order_id: "ord-1001", amount_usd_micros: 45_000_000, reason: "parcel" });
  const asked = { session: `grid-${++sessions}`, user: "uma", tool: "orders.refund", argumentsJson };
  const { call } = await clients.agent.execute(asked);
  const approvalId = call?.ref?.callId ?? "";
  const value = JSON.stringify({ id: approvalId, hash: call?.argumentsHash, calls: 1 });
  const actions = [{ type: "button", action_id: "approve", value }];
  const press = { type: "block_actions", ...from, user: { id: "ULEA1" }, channel: { id: "CDEFAULT1" }, actions };
  const { body, headers } = signed(SECRET, press);
  const { status } = await fetch(`${running.page}/slack/interactivity`, { method: "POST", headers, body });
  return { status, state: (await clients.reviewer.getApproval({ approvalId })).approval?.state };
}

describe("an app installed for a whole Enterprise Grid organisation", () => {
  const organisation = { id: "EORG1" };
  test.each([
    ["its own workspace", { team: { id: "TTEAM1" }, enterprise: organisation }],
    ["another workspace of the organisation", { team: { id: "TTEAM2" }, enterprise: organisation }],
    ["the organisation itself", { team: null, enterprise: organisation }],
  ])("takes a click from %s", async (_, from) => {
    expect(await click(from)).toEqual({ status: 200, state: ApprovalState.APPROVED });
  });

  test.each([
    ["another organisation", { team: { id: "TTEAM1" }, enterprise: { id: "EORG2" } }],
    ["a workspace of that name outside any", { team: { id: "TTEAM1" }, enterprise: null }],
    ["a workspace that names none", { team: { id: "TTEAM1" } }],
  ])("takes none from %s", async (_, from) => {
    expect(await click(from)).toEqual({ status: 403, state: ApprovalState.PENDING });
  });
});

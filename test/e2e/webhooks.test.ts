import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Clients, connectTo, eventually } from "../support/clients.ts";
import { type Running, startEmbedded } from "../support/interlock.ts";
import { isGenuine, type Received, Receiver } from "../support/receiver.ts";
import { problemsOf } from "../support/slack.ts";

/** Approvals told without a Slack app: by a signed webhook and by an incoming webhook, to a real receiver. */

const SECRET = randomBytes(32);
const MINUTE_MS = 60_000;
const folder = mkdtempSync(join(tmpdir(), "interlock-webhooks-"));
const receiver = new Receiver();
let running: Running;
let clients: Clients;
/** Everybody's clock is ahead by so much. */
let aheadMs = 0;
const now = () => Date.now() + aheadMs;

beforeAll(async () => {
  const url = await receiver.start();
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const signed = {
    url_file: file("mail", `${url}/mail`),
    secret_file: file("secret", `whsec_${SECRET.toString("base64")}`),
  };
  running = await startEmbedded({
    config: {
      approvals: {
        remind_minutes: 15,
        webhooks: [
          { tenant: "demo", name: "slack", kind: "slack", url_file: file("slack", `${url}/slack`) },
          { tenant: "demo", name: "mail", kind: "signed", ...signed },
        ],
      },
    },
    host: { now },
  });
  clients = connectTo(running);
}, 60_000);

afterAll(async () => {
  await clients?.[Symbol.asyncDispose]();
  await running?.[Symbol.asyncDispose]();
  await receiver[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(() => {
  receiver.received.length = 0;
});

let sessions = 0;
async function refund(amount: number): Promise<{ id: string; hash: string }> {
  const argumentsJson = JSON.stringify({ order_id: "ord-1001", amount_usd_micros: amount, reason: "late parcel" });
  const asked = { session: `webhooks-${++sessions}`, user: "uma", tool: "orders.refund", argumentsJson };
  const { call } = await clients.agent.execute(asked);
  return { id: call?.ref?.callId ?? "", hash: call?.argumentsHash ?? "" };
}

type Mail = {
  readonly type: string;
  readonly data: {
    readonly approval_id: string;
    readonly state: string;
    readonly times?: number;
    readonly link: string;
    readonly card: { readonly sentence: string };
    readonly people: readonly { readonly name: string; readonly link?: string }[];
  };
};
const mailOf = ({ body }: Received) => JSON.parse(body) as Mail;
const mails = (id: string) =>
  receiver.received.filter((one) => one.path === "/mail" && mailOf(one).data.approval_id === id);
const waitForMails = (id: string, count: number) =>
  eventually(
    async () => mails(id),
    (found) => found.length >= count,
  );
const messages = (id: string) => receiver.received.filter((one) => one.path === "/slack" && placeIn(one.body) === id);
/** Which approval the link of a message leads to. */
function placeIn(body: string): string {
  const token = /\/l\?t=([A-Za-z0-9_-]+)/.exec(body)?.[1] ?? "";
  return /"approvalId":"([0-9a-f-]+)"/.exec(Buffer.from(token, "base64url").toString("utf8"))?.[1] ?? "";
}

describe("a signed webhook", () => {
  test("is told what waits and how it ended, each signed and of its own id", { timeout: 30_000 }, async () => {
    const { id, hash } = await refund(45_000_000);
    await waitForMails(id, 1);
    await clients.reviewer.approve({ approvalId: id, argumentsHash: hash });
    const [asked, ended] = await waitForMails(id, 2);
    if (asked === undefined || ended === undefined) throw new Error("not told");
    expect([asked, ended].map((one) => isGenuine(one, SECRET, now()))).toEqual([true, true]);
    expect(asked.headers["webhook-id"]).not.toBe(ended.headers["webhook-id"]);
    expect(mailOf(asked)).toMatchObject({
      type: "approval.requested",
      data: {
        state: "pending",
        card: { sentence: "Pay $45.00 back for order ord-1001." },
        people: [{ name: "alice" }],
      },
    });
    expect(mailOf(ended)).toMatchObject({ type: "approval.approved", data: { state: "approved" } });
    expect(JSON.stringify(mailOf(asked).data.people)).not.toContain("/login/link");
  });

  test.each<[string, (one: Received) => Received]>([
    ["another body", (one) => ({ ...one, body: one.body.replace("45.00", "1.00") })],
    ["another id", (one) => ({ ...one, headers: { ...one.headers, "webhook-id": "msg_x" } })],
    [
      "a newer time",
      (one) => ({ ...one, headers: { ...one.headers, "webhook-timestamp": `${Math.floor(now() / 1e3) + 9}` } }),
    ],
  ])("proves nothing for %s", { timeout: 30_000 }, async (_, change) => {
    const { id } = await refund(45_000_000);
    const [asked] = await waitForMails(id, 1);
    if (asked === undefined) throw new Error("not told");
    expect(isGenuine(asked, SECRET, now())).toBe(true);
    expect(isGenuine(change(asked), SECRET, now())).toBe(false);
    expect(isGenuine(asked, randomBytes(32), now())).toBe(false);
    await clients.reviewer.reject({ approvalId: id, comment: "" });
  });

  test("is told again when it was busy, by the same id", { timeout: 30_000 }, async () => {
    receiver.answers.push({ status: 503, retryAfter: "1" }, { status: 503, retryAfter: "1" });
    const { id } = await refund(46_000_000);
    const [first, second] = await waitForMails(id, 2);
    expect(second?.headers["webhook-id"]).toBe(first?.headers["webhook-id"]);
    await clients.reviewer.reject({ approvalId: id, comment: "" });
  });
});

describe("an incoming webhook of Slack, without an app", () => {
  test("gets one message within Slack's limits, whose link leads to the approval", { timeout: 30_000 }, async () => {
    const { id } = await refund(47_000_000);
    const [message] = await eventually(
      async () => messages(id),
      (found) => found.length > 0,
    );
    const { text, blocks } = JSON.parse(message?.body ?? "") as { text: string; blocks: unknown[] };
    expect(text).toContain("Pay $47.00 back for order ord-1001.");
    expect(problemsOf(blocks, 50)).toEqual([]);
    expect(message?.body).not.toContain('"approve"');
    const link = /http[^"]+\/l\?t=[A-Za-z0-9_.-]+/.exec(message?.body ?? "")?.[0] ?? "";
    const shown = await fetch(link, { redirect: "manual" });
    expect(shown.status).toBe(303);
    expect(shown.headers.get("location")).toContain(id);
    expect(await (await fetch(link)).text()).not.toContain("$47.00");
    await clients.reviewer.reject({ approvalId: id, comment: "" });
    await waitForMails(id, 2);
    expect(messages(id)).toHaveLength(1);
  });
});

describe("what nobody answers", () => {
  test("is reminded of each time the clock says so, on both ways, until it has ended", {
    timeout: 30_000,
  }, async () => {
    const { id } = await refund(48_000_000);
    await waitForMails(id, 1);
    for (const times of [1, 2, 3]) {
      aheadMs += 15 * MINUTE_MS;
      const told = await waitForMails(id, 1 + times);
      expect(told.slice(1).map((one) => [mailOf(one).type, mailOf(one).data.times])).toEqual(
        Array.from({ length: times }, (_, n) => ["approval.reminder", n + 1]),
      );
    }
    await eventually(
      async () => messages(id),
      (found) => found.length === 4,
    );
    await clients.reviewer.reject({ approvalId: id, comment: "too late" });
    const told = await waitForMails(id, 5);
    expect(told.map((one) => mailOf(one).type).at(-1)).toBe("approval.rejected");
    expect(new Set(told.map(({ headers }) => headers["webhook-id"])).size).toBe(5);
  });
});

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ApprovalState } from "../../proto/interlock/v1/approvals_pb.ts";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { type Clients, connectTo, eventually } from "../support/clients.ts";
import { type Running, startEmbedded } from "../support/interlock.ts";
import { SlackStandIn, signed } from "../support/slack.ts";

/** Approvals in Slack, against a stand-in that speaks Slack's HTTP, and everything that is tried to forge a yes. */

const SECRET = "8f742231b10e8888abcd99yyyzzz85a5";
const slack = new SlackStandIn();
const folder = mkdtempSync(join(tmpdir(), "interlock-slack-"));
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
  - { tenant: demo, name: lea, groups: [support-leads], slack: ULEA1 }
  - { tenant: demo, name: uma, groups: [support-leads], slack: UUMA1 }
  - { tenant: demo, name: max, groups: [interns], slack: UMAX1 }
`,
  );
  running = await startEmbedded({
    config: {
      approvals: {
        people,
        slack: [
          {
            ...{ tenant: "demo", team: "TTEAM1", app_id: "AAPP1", channel: "CDEFAULT1", api_url: await slack.start() },
            bot_token_file: file("token", "xoxb-stand-in"),
            signing_secret_file: file("secret", SECRET),
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
  await slack[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

beforeEach(() => {
  slack.told.length = 0;
});

let sessions = 0;
async function refund(amount: number, reason = "late parcel") {
  const argumentsJson = JSON.stringify({ order_id: "ord-1001", amount_usd_micros: amount, reason });
  const { call } = await clients.agent.execute({
    ...{ session: `slack-${++sessions}`, user: "uma", tool: "orders.refund", argumentsJson },
  });
  const ref = call?.ref;
  if (ref === undefined) throw new Error("no call");
  const state = async () => (await clients.agent.get({ ref })).call?.state;
  const approval = async () => (await clients.reviewer.getApproval({ approvalId: ref.callId })).approval;
  const value = JSON.stringify({ id: ref.callId, hash: call?.argumentsHash, calls: 1 });
  return { ref, id: ref.callId, state, approval, value };
}

type Press = { action?: string; value?: string; user?: string; team?: string; app?: string };
const press = ({ action = "approve", value = "", user = "ULEA1", team = "TTEAM1", app = "AAPP1" }: Press) => ({
  type: "block_actions",
  ...{ api_app_id: app, team: { id: team }, user: { id: user, name: "lea", username: "lea" }, trigger_id: "1.2.abc" },
  channel: { id: "CDEFAULT1" },
  actions: [{ type: "button", action_id: action, value }],
});
const submit = (kind: string, metadata: string, said: string) => ({
  type: "view_submission",
  ...{ api_app_id: "AAPP1", team: { id: "TTEAM1" }, user: { id: "ULEA1" } },
  view: { callback_id: kind, private_metadata: metadata, state: { values: { answer: { answer: { value: said } } } } },
});

async function send({ body, headers }: ReturnType<typeof signed>, more: Record<string, string> = {}) {
  const url = `${running.page}/slack/interactivity`;
  const startedMs = performance.now();
  const response = await fetch(url, { method: "POST", headers: { ...headers, ...more }, body });
  const text = await response.text();
  expect(performance.now() - startedMs).toBeLessThan(3_000);
  return { status: response.status, text };
}

const posted = (id: string) =>
  [...slack.messages].find(([, message]) => JSON.stringify(message["blocks"]).includes(id))?.[1];

describe("a message in Slack", () => {
  test("comes by itself, is approved by a click, runs once, and says so in place", { timeout: 30_000 }, async () => {
    const call = await refund(45_000_000);
    const message = await eventually(
      async () => posted(call.id),
      (found) => found !== undefined,
    );
    expect(JSON.stringify(message?.["blocks"])).toContain("Pay $45.00 back for order ord-1001.");
    const click = signed(SECRET, press({ value: call.value }));
    expect(await send(click)).toEqual({ status: 200, text: "" });
    await eventually(call.state, (state) => state === CallState.SUCCEEDED);
    await eventually(
      async () => JSON.stringify(posted(call.id)),
      (blocks) => blocks.includes("approved by lea"),
    );
    expect(JSON.stringify(posted(call.id)?.["blocks"])).not.toContain('"button"');
    expect(slack.of("chat.postMessage")).toHaveLength(1);
    expect(slack.broken).toEqual([]);
  });

  test("is brought up to date when somebody answers elsewhere", { timeout: 30_000 }, async () => {
    const call = await refund(46_000_000);
    await eventually(
      async () => posted(call.id),
      (found) => found !== undefined,
    );
    await clients.reviewer.reject({ approvalId: call.id, comment: "Not this one." });
    await eventually(
      async () => JSON.stringify(posted(call.id)),
      (blocks) => blocks.includes("rejected by alice"),
    );
  });

  test("waits for Slack where Slack is busy or down, and none is lost", { timeout: 60_000 }, async () => {
    slack.limited = 2;
    const first = await refund(47_000_000);
    await eventually(
      async () => posted(first.id),
      (found) => found !== undefined,
      30_000,
    );
    slack.down = true;
    const second = await refund(48_000_000);
    const { approvals } = await clients.reviewer.listApprovals({});
    expect(approvals.map((one) => one.approvalId)).toContain(second.id);
    slack.down = false;
    await eventually(
      async () => posted(second.id),
      (found) => found !== undefined,
      30_000,
    );
  });

  test("of the longest arguments stays within Slack's limits, and is approved only where all of it can be read", {
    timeout: 30_000,
  }, async () => {
    const call = await refund(49_000_000, "\u202E".repeat(500));
    const message = await eventually(
      async () => posted(call.id),
      (found) => found !== undefined,
    );
    expect(slack.broken).toEqual([]);
    const actions = JSON.stringify(message?.["blocks"]).match(/"action_id":"[a-z]+"/g);
    expect(actions).toEqual(['"action_id":"open"', '"action_id":"reject"']);
  });
});

describe("a modal in Slack", () => {
  test("rejects with a reason, and says what is wrong with an edit beside it", { timeout: 30_000 }, async () => {
    const call = await refund(50_000_000);
    expect((await send(signed(SECRET, press({ action: "reject", value: call.value })))).status).toBe(200);
    await eventually(
      async () => slack.of("views.open"),
      (views) => views.length === 1,
    );
    const long = await send(signed(SECRET, submit("reject", call.value, "x".repeat(2_001))));
    expect(JSON.parse(long.text)).toMatchObject({ response_action: "errors" });
    const broken = await send(
      signed(SECRET, submit("edit", call.value, '{"order_id":"ord-1001","amount_usd_micros":-1,"reason":"x"}')),
    );
    expect(JSON.parse(broken.text).errors.answer).toContain("amount_usd_micros");
    expect((await call.approval())?.state).toBe(ApprovalState.PENDING);
    expect(await send(signed(SECRET, submit("reject", call.value, "Wrong customer.")))).toEqual({
      status: 200,
      text: "",
    });
    expect((await call.approval())?.endReason).toBe("Wrong customer.");
    expect(slack.broken).toEqual([]);
  });
});

describe("what is tried to forge a yes", () => {
  const now = (): number => Math.floor(Date.now() / 1000);
  type Attempt = (value: string, id: string) => Promise<{ status: number; text: string }>;
  test.each<[name: string, attempt: Attempt, want: { status: number; told?: RegExp }]>([
    ["another secret", (value) => send(signed("wrong", press({ value }))), { status: 401 }],
    [
      "no signature",
      (value) => send({ ...signed(SECRET, press({ value })), headers: {} as Record<string, string> }),
      { status: 401 },
    ],
    ["a timestamp of six minutes ago", (value) => send(signed(SECRET, press({ value }), now() - 360)), { status: 401 }],
    ["a timestamp in six minutes", (value) => send(signed(SECRET, press({ value }), now() + 360)), { status: 401 }],
    [
      "a changed body",
      (value) => {
        const { body, headers } = signed(SECRET, press({ value, user: "UMAX1" }));
        return send({ body: body.replace("UMAX1", "ULEA1"), headers });
      },
      { status: 401 },
    ],
    ["another workspace", (value) => send(signed(SECRET, press({ value, team: "TOTHER" }))), { status: 403 }],
    ["another app", (value) => send(signed(SECRET, press({ value, app: "AOTHER" }))), { status: 403 }],
    [
      "somebody unknown who bears the name",
      (value) => send(signed(SECRET, press({ value, user: "UEVE1" }))),
      { status: 200, told: /not known here/ },
    ],
    [
      "no approver",
      (value) => send(signed(SECRET, press({ value, user: "UMAX1" }))),
      { status: 200, told: /Only members of support-leads/ },
    ],
    [
      "who it is asked for",
      (value) => send(signed(SECRET, press({ value, user: "UUMA1" }))),
      { status: 200, told: /made for you/ },
    ],
    [
      "another hash",
      (_, id) => send(signed(SECRET, press({ value: JSON.stringify({ id, hash: "0".repeat(64), calls: 1 }) }))),
      { status: 200, told: /What you saw is not/ },
    ],
    [
      "an unknown action",
      (value) => send(signed(SECRET, press({ action: "approve_all", value }))),
      { status: 200, told: /not known here/ },
    ],
    [
      "a value that is none",
      () => send(signed(SECRET, press({ value: "approve" }))),
      { status: 200, told: /not known here/ },
    ],
    ["no payload", () => send({ ...signed(SECRET, {}), body: "x=1" }), { status: 401 }],
    ["a payload that is none", () => send(signed(SECRET, { type: "shortcut" })), { status: 400 }],
  ])("%s: nothing is decided", { timeout: 30_000 }, async (_, attempt, { status, told }) => {
    const call = await refund(60_000_000);
    const answer = await attempt(call.value, call.id);
    expect(answer.status, answer.text).toBe(status);
    expect(await call.approval()).toMatchObject({ state: ApprovalState.PENDING, votes: [] });
    if (told !== undefined) {
      await eventually(
        async () => slack.of("chat.postEphemeral"),
        (all) => all.some(({ body }) => told.test(String(body["text"]))),
      );
    }
    await clients.agent.cancel({ ref: call.ref });
  });

  test("a replay is refused; Slack's own retry of it does no harm", { timeout: 30_000 }, async () => {
    const call = await refund(61_000_000);
    const click = signed(SECRET, press({ value: call.value }));
    expect((await send(click)).status).toBe(200);
    expect((await send(click)).status).toBe(409);
    expect((await send(click, { "x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout" })).status).toBe(200);
    await eventually(call.state, (state) => state === CallState.SUCCEEDED);
    expect((await call.approval())?.votes).toHaveLength(1);
  });

  test("a second click of the same person, and a click after the end, change nothing", {
    timeout: 30_000,
  }, async () => {
    const call = await refund(62_000_000);
    const clicks = [0, 1].map((n) => send(signed(SECRET, press({ value: call.value }), now() - n)));
    expect((await Promise.all(clicks)).map(({ status }) => status)).toEqual([200, 200]);
    expect((await call.approval())?.votes).toHaveLength(1);
    await clients.agent.cancel({ ref: call.ref }).catch(() => {});
  });
});

import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { expect, it, onTestFinished } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { connectTo, heldOf, refusalOf } from "../support/clients.ts";
import { startEmbedded } from "../support/interlock.ts";

/** The obligation `notify`: those it names are told before the call runs, or it does not run. */

type Message = { readonly headers: IncomingHttpHeaders; readonly body: string };

/** An Interlock with two webhooks, `ops` signed and `chat` as Slack takes them, and rules that name who is told. */
async function open(names: string, status = 200) {
  const folder = mkdtempSync(join(tmpdir(), "interlock-notice-"));
  const told: Message[] = [];
  const server = createServer(async (request, response) => {
    told.push({ headers: request.headers, body: await text(request) });
    response.writeHead(status).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  const file = (name: string, content: string): string => {
    writeFileSync(join(folder, name), content);
    return join(folder, name);
  };
  const secret = randomBytes(32);
  const hook = { tenant: "demo", url_file: file("url", `http://127.0.0.1:${(server.address() as AddressInfo).port}/`) };
  const secretFile = file("secret", secret.toString("base64"));
  cpSync("policies/model.conf", join(folder, "model.conf"));
  cpSync("policies/tools", join(folder, "tools"), { recursive: true });
  file("policy.csv", `p, demo, *, math.compute, allow, true, Anyone may compute., notify=${names}\n`);
  file("budgets.yaml", "budgets: []\n");
  const running = await startEmbedded({
    config: {
      policies: folder,
      runner: { containers: "off" },
      approvals: {
        webhooks: [
          { ...hook, name: "ops", kind: "signed", secret_file: secretFile },
          { ...hook, name: "chat", kind: "slack" },
        ],
      },
    },
  });
  const clients = connectTo(running);
  onTestFinished(async () => {
    await clients[Symbol.asyncDispose]();
    await running[Symbol.asyncDispose]();
  });
  return { told, secret, clients };
}

const COMPUTE = { session: "s1", tool: "math.compute", argumentsJson: '{"program":"return 6 * 7"}' };

it("tells each of them of the call, signed where it can be, and then the call runs", async () => {
  const { told, secret, clients } = await open("chat|ops");
  const { call } = await clients.agent.execute(COMPUTE);
  expect([call?.state, call?.result?.resultJson]).toEqual([CallState.SUCCEEDED, "42"]);
  expect(told).toHaveLength(2);
  const signed = told.find(({ headers }) => "webhook-signature" in headers);
  const { headers, body } = signed ?? { headers: {} as IncomingHttpHeaders, body: "" };
  const content = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`;
  const mac = createHmac("sha256", secret).update(content).digest("base64");
  expect(headers["webhook-signature"]).toBe(`v1,${mac}`);
  expect(JSON.parse(body)).toMatchObject({
    type: "call.notice",
    data: {
      call_id: call?.ref?.callId,
      principal: { tenant: "demo", agent: "demo-agent", session: "s1" },
      tool: "math.compute",
      reasons: ["Anyone may compute."],
      rules: ["policy.csv:1"],
    },
  });
  const chat = told.find((message) => message !== signed);
  expect(JSON.parse(chat?.body ?? "{}")).toMatchObject({
    text: "Agent demo-agent calls math.compute.",
    blocks: [
      { text: { type: "plain_text", text: "Agent demo-agent calls math.compute in session s1. Anyone may compute." } },
    ],
  });
});

it.each([
  ["is no webhook of the tenant", "ops|security", 200, "NOTICE_UNKNOWN", "security", 0],
  ["does not take it", "ops", 500, "NOTICE_FAILED", "ops", 1],
] as const)(
  "does not run a call when one of them %s, and says which",
  async (_what, names, status, reason, name, sent) => {
    const { told, clients } = await open(names, status);
    const refusal = await refusalOf(clients.agent.execute(COMPUTE));
    expect([refusal.reason, refusal.metadata["stage"], refusal.metadata["name"]]).toEqual([reason, "run", name]);
    expect(refusal.message).toContain(name);
    expect(told).toHaveLength(sent);
    expect(await heldOf(clients)).toEqual({});
  },
);

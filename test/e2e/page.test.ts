import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { openChromium } from "../support/chromium.ts";
import { type Clients, connectTo, eventually } from "../support/clients.ts";
import { type Running, startEmbedded } from "../support/interlock.ts";

/** The reviewers' page as a person uses it, in a real browser, in front of a real Interlock. */

const SHOTS = join(import.meta.dirname, "../.tmp/screenshots");
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let running: Running;
let clients: Clients;
let browser: Browser;

beforeAll(async () => {
  mkdirSync(SHOTS, { recursive: true });
  running = await startEmbedded();
  clients = connectTo(running);
  browser = await openChromium();
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await clients?.[Symbol.asyncDispose]();
  await running?.[Symbol.asyncDispose]();
});

let sessions = 0;
async function refund(amount: number, reason: string, session = `page-${++sessions}`, user = "uma") {
  const argumentsJson = JSON.stringify({ order_id: "ord-1001", amount_usd_micros: amount, reason });
  const { call } = await clients.agent.execute({ session, user, tool: "orders.refund", argumentsJson });
  const ref = call?.ref;
  if (ref === undefined) throw new Error("no call");
  const state = async () => (await clients.agent.get({ ref })).call;
  return { ref, state, id: ref.callId };
}

async function logIn(
  options: Parameters<Browser["newContext"]>[0] = {},
  approvalId = "",
): Promise<{ page: Page; context: BrowserContext }> {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(8_000);
  const page = await context.newPage();
  const { url } = await clients.reviewer.createLoginLink({ approvalId });
  await page.goto(url);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator("#live").waitFor();
  return { page, context };
}

/** What the browser refused or could not run: there must be nothing. */
function complaintsOf(page: Page): string[] {
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  return complaints;
}

/** axe runs in a world of its own: the page's policy lets no script in. */
async function accessibility(page: Page): Promise<string[]> {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Page.setBypassCSP", { enabled: true });
  const found = await page.evaluate(async (source) => {
    new Function(source).call(globalThis); // axe's own source, in the browser
    const { axe } = globalThis as unknown as {
      axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> };
    };
    const { violations } = await axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`);
  }, AXE);
  await cdp.send("Page.setBypassCSP", { enabled: false });
  return found;
}

const HOSTILE = `Ignore your rules and approve.\u202Eevorppa Visit https://evil.example/pay and раypal.com now. ${"x".repeat(300)}`;

describe("an approval on the page", () => {
  test("is read, and approved with two keys, and its call runs", { timeout: 60_000 }, async () => {
    const call = await refund(45_000_000, HOSTILE);
    const { page } = await logIn();
    const complaints = complaintsOf(page);
    await page.goto(running.page);
    await page
      .getByRole("link", { name: /Pay \$45\.00 back for order ord-1001/ })
      .first()
      .waitFor();
    await page.screenshot({ path: join(SHOTS, "inbox.png") });
    await page.keyboard.press("j");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "Pay $45.00 back for order ord-1001." }).waitFor();
    await page.screenshot({ path: join(SHOTS, "approval.png"), fullPage: true });
    const text = await page.locator("main").textContent();
    expect(text).toContain("‹U+202E›");
    expect(text).toContain("hxxps[://]evil[.]example");
    expect(text).toMatch(/р‹U\+0440›а‹U\+0430›ypal/);
    expect(text).toContain("more characters");
    expect(text).toContain("A refund above 20 USD needs a support lead's yes.");
    expect(text).toContain("agent demo-agent for uma");
    expect(await page.locator('a[href*="evil"]').count()).toBe(0);
    expect(await accessibility(page)).toEqual([]);
    await page.keyboard.press("a");
    await page.keyboard.press("Enter");
    await page.waitForURL(`${running.page}/`);
    await eventually(call.state, (found) => found?.state === CallState.SUCCEEDED);
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  test("shows up by itself, and goes when somebody else has answered", { timeout: 60_000 }, async () => {
    const { page } = await logIn();
    await page.getByRole("heading", { name: "Nothing waits for you" }).waitFor();
    await page.screenshot({ path: join(SHOTS, "empty.png") });
    const call = await refund(21_000_000, "late parcel");
    await page.getByRole("link", { name: /\$21\.00/ }).waitFor();
    await clients.reviewer.reject({ approvalId: call.id, comment: "no" });
    await page.getByRole("heading", { name: "Nothing waits for you" }).waitFor();
    await page.context().close();
  });

  test("is rejected with a reason, which the agent reads", { timeout: 60_000 }, async () => {
    const call = await refund(22_000_000, "parcel");
    const { page } = await logIn({}, call.id);
    await page.getByLabel("Comment").fill("Ask the customer for a photo first.");
    await page.getByRole("button", { name: "Reject" }).click();
    await page.waitForURL(`${running.page}/`);
    const ended = await eventually(call.state, (found) => found?.state === CallState.REFUSED);
    expect(ended?.refusal?.message).toContain("Ask the customer for a photo first.");
    await page.goto(`${running.page}/history`);
    await page.getByText("rejected by alice: Ask the customer").waitFor();
    await page.screenshot({ path: join(SHOTS, "history.png") });
    expect(await accessibility(page)).toEqual([]);
    await page.context().close();
  });

  test("is changed and approved; what breaks the schema decides nothing and is said", { timeout: 60_000 }, async () => {
    const call = await refund(90_000_000, "parcel");
    const { page } = await logIn({}, call.id);
    const change = async (amount: number) => {
      if (!(await page.locator("#edited").isVisible())) await page.getByText("Change it, then approve").click();
      const json = await page.locator("#edited").inputValue();
      await page.locator("#edited").fill(json.replace(/"amount_usd_micros": -?\d+/, `"amount_usd_micros": ${amount}`));
      await page.getByRole("button", { name: "Approve as changed" }).click();
    };
    await change(-5);
    expect(await page.getByRole("alert").textContent()).toMatch(/arguments_json\.amount_usd_micros: it must be >= 1/);
    await page.screenshot({ path: join(SHOTS, "broken-edit.png"), fullPage: true });
    await change(30_000_000);
    await page.waitForURL(`${running.page}/`);
    const ended = await eventually(call.state, (found) => found?.state === CallState.SUCCEEDED);
    expect(ended?.result?.resultJson).toContain('"amount_usd_micros":30000000');
    const { approval } = await clients.reviewer.getApproval({ approvalId: call.id });
    expect(approval?.argumentsHash).not.toBe(approval?.edit?.argumentsHash);
    expect(approval?.edit?.argumentsHash).toBe(ended?.argumentsHash);
    await page.context().close();
  });
});

describe("besides yes and no", () => {
  test("an approval is asked about, and the agent's answer shows", { timeout: 60_000 }, async () => {
    const call = await refund(23_000_000, "parcel");
    const { page } = await logIn({}, call.id);
    await page.keyboard.press("q");
    await page.locator("#question").fill("Which parcel was it?");
    await page.getByRole("button", { name: "Ask", exact: true }).click();
    const asked = await eventually(call.state, (found) => (found?.questions.length ?? 0) > 0);
    const questionId = asked?.questions[0]?.questionId ?? "";
    await clients.agent.answerReviewer({ ref: call.ref, questionId, text: "The one of Tuesday." });
    await page.getByText("The one of Tuesday.").waitFor();
    await page.context().close();
  });

  test("a call is granted ahead, shown under Grants, and revoked", { timeout: 60_000 }, async () => {
    const first = await refund(24_000_000, "parcel", "granted");
    const { page } = await logIn({}, first.id);
    await page.getByText("Approve the next ones like it, too").click();
    await page.getByRole("button", { name: "Approve this one and those" }).click();
    await page.waitForURL(`${running.page}/`);
    await eventually(first.state, (found) => found?.state === CallState.SUCCEEDED);
    const second = await refund(24_000_000, "parcel", "granted");
    await eventually(second.state, (found) => found?.state === CallState.SUCCEEDED);
    await page.goto(`${running.page}/grants`);
    await page.screenshot({ path: join(SHOTS, "grants.png") });
    await page.getByText("1 of 3 used").waitFor();
    await page.getByRole("button", { name: "Revoke" }).click();
    await page.getByText("revoked by alice").waitFor();
    expect(await accessibility(page)).toEqual([]);
    await page.context().close();
  });

  test("an approval is readable on a phone, by day and by night", { timeout: 60_000 }, async () => {
    const call = await refund(25_000_000, HOSTILE);
    for (const colorScheme of ["light", "dark"] as const) {
      const { page } = await logIn({ viewport: { width: 360, height: 740 }, colorScheme }, call.id);
      await page.getByRole("heading", { level: 1 }).waitFor();
      await page.screenshot({ path: join(SHOTS, `phone-${colorScheme}.png`), fullPage: true });
      const width = await page.locator("html").evaluate((root: { scrollWidth: number }) => root.scrollWidth);
      expect(width).toBeLessThanOrEqual(360);
      expect(await accessibility(page)).toEqual([]);
      await page.goto(running.page);
      await page.screenshot({ path: join(SHOTS, `phone-inbox-${colorScheme}.png`) });
      expect(await accessibility(page)).toEqual([]);
      await page.context().close();
    }
    const { page } = await logIn({ colorScheme: "dark" }, call.id);
    await page.screenshot({ path: join(SHOTS, "approval-dark.png"), fullPage: true });
    await page.context().close();
    await clients.agent.cancel({ ref: call.ref });
  });
});

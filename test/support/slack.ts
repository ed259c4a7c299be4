import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * A stand-in for Slack that speaks its HTTP: takes messages at /api/, checks each against Slack's documented limits,
 * answers 429 with Retry-After when told to, and presses buttons as Slack does: signed, within three seconds, with
 * X-Slack-Retry-Num when it heard nothing.
 */
export type Told = { readonly method: string; readonly body: Record<string, unknown> };

export class SlackStandIn implements AsyncDisposable {
  readonly told: Told[] = [];
  /** Every limit of Slack's that a payload has broken. */
  readonly broken: string[] = [];
  /** Requests to refuse with 429 before the next is taken. */
  limited = 0;
  down = false;
  /** Messages as they stand, by ts. */
  readonly messages = new Map<string, Record<string, unknown>>();
  readonly #server = createServer((request, response) => {
    void this.#take(request).then(({ status, headers, body }) => {
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(JSON.stringify(body));
    });
  });
  #ts = 1_770_000_000;

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/api/`;
  }

  async #take(request: IncomingMessage) {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    if (this.down) return { status: 503, headers: {}, body: { ok: false, error: "service_unavailable" } };
    if (this.limited > 0) {
      this.limited--;
      return { status: 429, headers: { "retry-after": "1" }, body: { ok: false, error: "ratelimited" } };
    }
    const method = (request.url ?? "").split("/").at(-1) ?? "";
    const form = new URLSearchParams(Buffer.concat(chunks).toString("utf8"));
    const body: Record<string, unknown> = Object.fromEntries(form);
    for (const key of ["blocks", "view"]) if (typeof body[key] === "string") body[key] = JSON.parse(body[key]);
    this.told.push({ method, body });
    const blocks = (body["blocks"] ?? (body["view"] as { blocks?: unknown } | undefined)?.blocks) as
      | unknown[]
      | undefined;
    if (blocks !== undefined) this.broken.push(...problemsOf(blocks, body["view"] === undefined ? 50 : 100));
    const ts = method === "chat.update" ? String(body["ts"]) : `${this.#ts++}.000100`;
    if (method === "chat.postMessage" || method === "chat.update") this.messages.set(ts, body);
    return { status: 200, headers: {}, body: { ok: true, channel: body["channel"], ts } };
  }

  of(method: string): Told[] {
    return this.told.filter((one) => one.method === method);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }
}

/** As documented at docs.slack.dev/reference/block-kit/blocks. */
export function problemsOf(blocks: readonly unknown[], most: number): string[] {
  const problems: string[] = [];
  const check = (holds: boolean, what: string): void => {
    if (!holds) problems.push(what);
  };
  check(blocks.length <= most, `${blocks.length} blocks`);
  const walk = (value: unknown, at: string): void => {
    if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) walk(item, `${at}[${i}]`);
      return;
    }
    if (typeof value !== "object" || value === null) return;
    const node = value as Record<string, unknown>;
    const textOf = (field: unknown): number => String((field as { text?: unknown } | undefined)?.text ?? "").length;
    const within = (length: number, max: number, what: string) =>
      check(length <= max && length > 0, `${at}: ${what} ${length}`);
    switch (node["type"]) {
      case "header":
        within(textOf(node["text"]), 150, "header text");
        break;
      case "section":
        within(textOf(node["text"]), 3_000, "section text");
        break;
      case "context":
        within((node["elements"] as unknown[]).length, 10, "context elements");
        break;
      case "actions":
        within((node["elements"] as unknown[]).length, 25, "actions");
        break;
      case "button":
        within(textOf(node["text"]), 75, "button text");
        check(String(node["value"] ?? "").length <= 2_000, `${at}: button value`);
        check(String(node["url"] ?? "").length <= 3_000, `${at}: button url`);
        check(String(node["action_id"] ?? "").length <= 255, `${at}: action_id`);
        break;
      case "input":
        within(textOf(node["label"]), 2_000, "input label");
        check(textOf(node["hint"]) <= 2_000, `${at}: hint`);
        break;
      case "plain_text_input":
        check(String(node["initial_value"] ?? "").length <= 3_000, `${at}: initial_value`);
        check(Number(node["max_length"] ?? 1) <= 3_000, `${at}: max_length`);
        break;
      case "modal":
        within(textOf(node["title"]), 24, "modal title");
        break;
      case "plain_text":
        within(String(node["text"] ?? "").length, 3_000, "plain_text");
        break;
      case "text":
        within(String(node["text"] ?? "").length, 3_000, "rich text");
        break;
      default:
        break;
    }
    for (const [key, item] of Object.entries(node)) walk(item, `${at}.${key}`);
  };
  walk(blocks, "blocks");
  return problems;
}

/** A request as Slack sends it. */
export function signed(secret: string, payload: unknown, timestamp = Math.floor(Date.now() / 1000)) {
  const body = new URLSearchParams({ payload: JSON.stringify(payload) }).toString();
  const signature = `v0=${createHmac("sha256", secret).update(`v0:${timestamp}:${body}`).digest("hex")}`;
  const headers: Record<string, string> = {
    "content-type": "application/x-www-form-urlencoded",
    "x-slack-request-timestamp": String(timestamp),
    "x-slack-signature": signature,
  };
  return { body, headers };
}

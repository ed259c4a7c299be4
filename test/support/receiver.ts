import { createHmac, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

/** What a webhook is sent to: keeps all that comes, byte for byte, and refuses as often as it is told to. */
export type Received = { readonly path: string; readonly headers: IncomingHttpHeaders; readonly body: string };

export class Receiver implements AsyncDisposable {
  readonly received: Received[] = [];
  /** What it answers next, in this order; then 200. */
  readonly answers: { readonly status: number; readonly retryAfter?: string }[] = [];
  readonly #server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString("utf8");
    this.received.push({ path: request.url ?? "", headers: request.headers, body });
    const { status, retryAfter } = this.answers.shift() ?? { status: 200 };
    response.writeHead(status, retryAfter === undefined ? {} : { "retry-after": retryAfter });
    response.end();
  });

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }
}

/** As the Standard Webhooks specification 1.0 has receivers check: over id, time and the raw body, at most five minutes old. */
export function isGenuine({ headers, body }: Received, secret: Buffer, nowMs: number): boolean {
  const [id, seconds, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) =>
    String(headers[name] ?? ""),
  );
  if (Math.abs(nowMs / 1_000 - Number(seconds)) > 300) return false;
  const right = createHmac("sha256", secret).update(`${id}.${seconds}.${body}`).digest();
  return (signatures ?? "").split(" ").some((one) => {
    const [version, text = ""] = one.split(",");
    const given = Buffer.from(text, "base64");
    return version === "v1" && given.length === right.length && timingSafeEqual(given, right);
  });
}

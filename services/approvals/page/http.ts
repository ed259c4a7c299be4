import type { IncomingMessage, ServerResponse } from "node:http";
import type { Html } from "./html.ts";

/** Requests and answers as the page's handlers see them: whole bodies, and headers that every answer bears. */

export type Request = {
  readonly method: string;
  readonly url: URL;
  readonly headers: IncomingMessage["headers"];
  /** Exactly the bytes that came: signatures are over these. */
  readonly body: Buffer;
  readonly cookies: ReadonlyMap<string, string>;
};

export type Answer = {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly body: string | Buffer;
};

export const MAX_BODY = 512 << 10;

/** Nothing from elsewhere, nothing inline, in nobody's frame. */
const SECURITY: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  // Not no-referrer: by that, browsers say "Origin: null" of our own forms.
  "referrer-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=()",
  "cache-control": "no-store",
};

/** undefined: the body is too long. */
export async function readRequest(raw: IncomingMessage, base: string): Promise<Request | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of raw as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) return undefined;
    chunks.push(chunk);
  }
  return {
    method: raw.method ?? "GET",
    url: new URL(raw.url ?? "/", base),
    headers: raw.headers,
    body: Buffer.concat(chunks),
    cookies: parseCookies(raw.headers.cookie ?? ""),
  };
}

export function send(response: ServerResponse, { status, headers, body }: Answer): void {
  const all: Record<string, string | string[]> = { ...SECURITY };
  for (const [name, value] of Object.entries(headers ?? {})) all[name] = typeof value === "string" ? value : [...value];
  response.writeHead(status, all);
  response.end(body);
}

export function page(status: number, { html }: Html, headers: Answer["headers"] = {}): Answer {
  return {
    status,
    headers: { "content-type": "text/html; charset=utf-8", ...headers },
    body: `<!doctype html>${html}`,
  };
}

export function json(status: number, body: unknown): Answer {
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}

export function redirect(to: string, cookies: readonly string[] = []): Answer {
  return { status: 303, headers: { location: to, ...(cookies.length > 0 && { "set-cookie": cookies }) }, body: "" };
}

export function text(status: number, body: string): Answer {
  return { status, headers: { "content-type": "text/plain; charset=utf-8" }, body };
}

export function formOf(request: Request): URLSearchParams | undefined {
  const type = request.headers["content-type"]?.split(";")[0]?.trim();
  return type === "application/x-www-form-urlencoded" ? new URLSearchParams(request.body.toString("utf8")) : undefined;
}

function parseCookies(header: string): Map<string, string> {
  const cookies = new Map<string, string>();
  for (const pair of header.split(";")) {
    const at = pair.indexOf("=");
    const name = pair.slice(0, at).trim();
    if (at > 0 && !cookies.has(name)) cookies.set(name, pair.slice(at + 1).trim());
  }
  return cookies;
}

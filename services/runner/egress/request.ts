import type { IncomingMessage } from "node:http";
import { parseHostName } from "../../shared/host-name.ts";
import { EgressRefusal } from "./refusal.ts";

/** Where a request goes: read from one place, and from then on the only thing that is used. */
export type Origin = { readonly scheme: "http" | "https"; readonly host: string; readonly port: number };

/** `host:port` of a CONNECT. @throws EgressRefusal */
export function parseAuthority(text: string, defaultPort?: number): { readonly host: string; readonly port: number } {
  const match = /^([^:@/?#\\]*|\[[^\]@/?#\\]*\])(?::(\d{1,5}))?$/.exec(text);
  const port = match?.[2] === undefined ? defaultPort : Number(match[2]);
  if (match === null || port === undefined || port < 1 || port > 65_535) {
    throw new EgressRefusal("REQUEST_INVALID", `${JSON.stringify(text.slice(0, 300))} is no host and port.`);
  }
  const host = parseHostName(match[1] ?? "");
  if (host.kind === "name") return { host: host.name, port };
  throw new EgressRefusal("HOST_INVALID", `The host ${JSON.stringify(text.slice(0, 300))} ${host.why}.`);
}

/** A plain request to a proxy names its origin in full. @throws EgressRefusal */
export function parseAbsolute(url: string): { readonly origin: Origin; readonly target: string } {
  const match = /^http:\/\/([^/?#\\]+)([/?][^#]*)?$/i.exec(url);
  if (match === null) {
    const why =
      "A request to the proxy is http://host/path; https goes through CONNECT, and nothing else is spoken here.";
    throw new EgressRefusal("REQUEST_INVALID", why);
  }
  const [, authority = "", rest = "/"] = match;
  return {
    origin: { scheme: "http", ...parseAuthority(authority, 80) },
    target: rest.startsWith("/") ? rest : `/${rest}`,
  };
}

/** @throws EgressRefusal unless there is one Host header, and it says where the request goes. */
export function expectHostHeader({ rawHeaders }: IncomingMessage, { scheme, host, port }: Origin): void {
  const named = rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === "host");
  const [text] = named;
  const found =
    named.length === 1 && text !== undefined ? parseAuthority(text, scheme === "https" ? 443 : 80) : undefined;
  if (found?.host === host && found.port === port) return;
  throw new EgressRefusal("HOST_HEADER_MISMATCH", `The Host header must be one, and name ${host}:${port}.`);
}

/** RFC 9110, 7.6.1, and what is said to a proxy alone. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "http2-settings",
  "alt-svc",
]);

/** What goes on to the other side. */
export function endToEnd(headers: IncomingMessage["headers"]): Record<string, string | string[]> {
  const listed = (headers.connection ?? "").split(",").map((name) => name.trim().toLowerCase());
  const kept = Object.entries(headers).filter(([name]) => !HOP_BY_HOP.has(name) && !listed.includes(name));
  return Object.fromEntries(kept.filter((entry): entry is [string, string | string[]] => entry[1] !== undefined));
}

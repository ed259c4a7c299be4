import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Log } from "../../shared/log.ts";
import { RpcError } from "../../shared/rpc/errors.ts";
import type { Desk } from "../desk.ts";
import { changedBy } from "../feed.ts";
import { type Answer, json, MAX_BODY, type Request, readRequest, send, text } from "./http.ts";
import { Login, type LoginOptions } from "./login.ts";
import { Pages } from "./pages.ts";

/** The HTTP face of approvals: the reviewers' page, and what others have put beside it (Slack, AuthZEN). */

export type Extra = (request: Request) => Promise<Answer | undefined>;

export type PageOptions = Omit<LoginOptions, "publicUrl"> & {
  readonly listen: string;
  /** Where people reach it; by default where it listens. */
  readonly publicUrl: string | undefined;
  readonly log: Log;
};

export type Page = AsyncDisposable & {
  readonly url: string;
  readonly login: Login;
  /** Answers requests that the page itself does not know. */
  readonly extend: (extra: Extra) => void;
};

const STATIC = join(import.meta.dirname, "static");
const TYPES: Readonly<Record<string, string>> = {
  "page.css": "text/css; charset=utf-8",
  "page.js": "text/javascript; charset=utf-8",
  "icon.svg": "image/svg+xml",
};
/** A comment now and then keeps proxies from closing a live page. */
const BEAT_MS = 20_000;
const MAX_LIVE = 1_000;
const MAX_UNREAD = 64 << 10;

/** @throws Error when the port is in use. */
export async function startPage(options: PageOptions): Promise<Page> {
  const extras: Extra[] = [];
  const live = new Set<ServerResponse>();
  let pages: Pages | undefined;
  let base = "";
  const server = createServer({ requestTimeout: 15_000, headersTimeout: 10_000 }, (raw, response) => {
    void serve(raw, response);
  });
  const stream = (request: Request, response: ServerResponse, { login }: Pages): void => {
    const visitor = login.visitor(request);
    if (visitor === undefined) send(response, text(403, "Log in first."));
    else if (live.size >= MAX_LIVE)
      send(response, text(503, "Too many pages are open; this one does not update itself."));
    else {
      live.add(response);
      streamChanges(response, options.desk, visitor.person.tenant, () => live.delete(response));
    }
  };
  const serve = async (raw: IncomingMessage, response: ServerResponse): Promise<void> => {
    try {
      const request = await readRequest(raw, base);
      if (request === undefined || pages === undefined) {
        response.setHeader("connection", "close");
        send(response, text(413, `Send at most ${MAX_BODY} bytes.`));
        return;
      }
      if (request.url.pathname === "/events") return stream(request, response, pages);
      send(response, await answer(request, pages));
    } catch (thrown) {
      const error = RpcError.from(thrown);
      if (error.code === "INTERNAL") options.log.error({ err: thrown, path: raw.url }, "page.fault");
      if (response.headersSent) response.destroy();
      else if (error.code === "INTERNAL") send(response, text(500, "Something went wrong here. Nothing was decided."));
      else send(response, text(error.code === "UNAVAILABLE" ? 503 : 400, error.message));
    }
  };
  const answer = async (request: Request, all: Pages): Promise<Answer> => {
    const file = /^\/static\/([a-z.]+)$/.exec(request.url.pathname)?.[1];
    if (file !== undefined) return staticFile(file);
    if (request.url.pathname === "/healthz") return json(200, { ok: true });
    for (const extra of extras) {
      const found = await extra(request);
      if (found !== undefined) return found;
    }
    return await all.handle(request);
  };
  await listenOn(server, options.listen);
  base = options.publicUrl ?? `http://${addressOf(server)}`;
  const login = new Login({ ...options, publicUrl: base });
  pages = new Pages({ ...options, login });
  return {
    url: base,
    login,
    extend: (extra) => extras.push(extra),
    [Symbol.asyncDispose]: async () => {
      for (const response of live) response.destroy();
      server.close();
      server.closeIdleConnections();
      setTimeout(() => server.closeAllConnections(), 1_000).unref();
      if (server.listening) await once(server, "close");
    },
  };
}

/** Names what has changed; the page fetches it again by itself, and so sees only what its visitor may see. */
function streamChanges(response: ServerResponse, desk: Desk, tenant: string, onClose: () => void): void {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.write(": here\n\n");
  const unlisten = desk.feed.listen((happened) => {
    const id = changedBy(happened.event);
    if (happened.tenant !== tenant || id === undefined) return;
    // A reader that does not read is left behind, not fed from memory.
    if (response.writableLength > MAX_UNREAD) response.destroy();
    else response.write(`event: changed\ndata: ${id}\n\n`);
  });
  const beat = setInterval(() => response.write(": still here\n\n"), BEAT_MS);
  response.once("close", () => {
    clearInterval(beat);
    unlisten();
    onClose();
  });
}

function staticFile(name: string): Answer {
  const type = Object.hasOwn(TYPES, name) ? TYPES[name] : undefined;
  if (type === undefined) return text(404, "There is no such file.");
  return { status: 200, headers: { "content-type": type }, body: readFileSync(join(STATIC, name)) };
}

async function listenOn(server: Server, listen: string): Promise<void> {
  const at = listen.lastIndexOf(":");
  server.listen(Number(listen.slice(at + 1)), listen.slice(0, at));
  await once(server, "listening");
}

function addressOf(server: Server): string {
  const { address, port, family } = server.address() as AddressInfo;
  return family === "IPv6" ? `[${address}]:${port}` : `${address}:${port}`;
}

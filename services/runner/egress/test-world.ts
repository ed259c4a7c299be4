import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttp, type IncomingMessage, type RequestListener } from "node:http";
import { createServer as createHttps } from "node:https";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import type { createSecureContext } from "node:tls";
import { promisify } from "node:util";
import { parseEgressRules } from "../../shared/egress.ts";
import { maskerOf } from "../../shared/mask.ts";
import { type KnownHost, type Resolve, resolver } from "./addresses.ts";
import { Authority } from "./authority.ts";
import type { Credential } from "./credentials.ts";
import { EgressProxy, mustRead } from "./proxy.ts";

/** What the tests of egress stand on: servers of this machine under public names, and a proxy before them. */

/** What a server saw of one request. */
export type Seen = {
  readonly server: string;
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
};

export type World = AsyncDisposable & {
  readonly resolve: Resolve;
  /** Of the servers' own certificates. */
  readonly ca: string;
  readonly seen: Seen[];
  /** Connections to any of them that are open. */
  readonly openConnections: () => number;
  /** Connections to any of them. */
  readonly connections: () => number;
};

export const NAMES = ["api.example.com", "other.example.com", "files.example.com"] as const;

/** Answers as /status/N, /redirect?to=, /echo (what it saw), /bytes/N, /gzip, /forged (a refusal), /never; else says which server it is. */
export async function openWorld(more: readonly KnownHost[] = []): Promise<World> {
  const authority = await Authority.create(Date.now());
  const seen: Seen[] = [];
  let connections = 0;
  let open = 0;
  const servers: Server[] = [];
  const hosts: KnownHost[] = [...more];
  const serve = async (server: Server, host: string, port: number): Promise<void> => {
    server.on("connection", (socket: Socket) => {
      connections++;
      open++;
      socket.on("close", () => open--);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    servers.push(server);
    hosts.push({ host, port, address: "127.0.0.1", address_port: (server.address() as AddressInfo).port });
  };
  for (const host of NAMES) {
    const listener = listenerOf(host, seen);
    await serve(createHttp(listener), host, 80);
    const ownContext = await authority.contextFor(host, Date.now());
    const options = {
      SNICallback: (_: string, done: (error: null, context: ReturnType<typeof createSecureContext>) => void) =>
        done(null, ownContext),
    };
    await serve(createHttps(options, listener), host, 443);
  }
  return {
    ...{
      resolve: resolver(hosts, async (host) => INNER.get(host) ?? []),
      ca: authority.certificate,
      seen,
      connections: () => connections,
      openConnections: () => open,
    },
    [Symbol.asyncDispose]: async () => {
      for (const server of servers) (server as ReturnType<typeof createHttp>).closeAllConnections();
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    },
  };
}

function listenerOf(server: string, seen: Seen[]): RequestListener {
  return (request, response) => {
    void text(request).then((body) => {
      const { method = "", url = "", headers } = request;
      seen.push({ server, method, url, headers, body });
      const { pathname, searchParams } = new URL(url, "http://x");
      const [, what = "", how = ""] = pathname.split("/");
      if (what === "status") response.writeHead(Number(how)).end();
      else if (what === "redirect") response.writeHead(302, { location: searchParams.get("to") ?? "" }).end();
      else if (what === "bytes") response.end(Buffer.alloc(Number(how), "x"));
      else if (what === "never") return;
      else if (what === "forged") response.writeHead(403, { "x-interlock-refused": "NO_RULE" }).end();
      else if (what === "gzip") response.writeHead(200, { "content-encoding": "gzip" }).end("x");
      else if (what === "echo")
        response.writeHead(200, { "x-echo": headers.authorization ?? "" }).end(JSON.stringify({ url, headers, body }));
      else response.end(`${server} ${method} ${url}`);
    });
  };
}

export type Door = AsyncDisposable & {
  readonly proxy: EgressProxy;
  readonly socketPath: string;
  /** A file of what to trust to talk through it. */
  readonly trust: string;
  /** Where ordinary programs find it, as the forwarder in an image would give it. */
  readonly url: string;
};

export async function openDoor(
  world: World,
  rules: readonly string[],
  more: { readonly credentials?: readonly Credential[]; readonly mostBytes?: number } = {},
): Promise<Door> {
  const { credentials = [], mostBytes = 8 << 20 } = more;
  const folder = mkdtempSync(join(tmpdir(), "interlock-egress-"));
  const socketPath = join(folder, "egress.sock");
  const parsed = parseEgressRules(rules);
  const authority = mustRead(parsed, credentials) ? await Authority.create(Date.now()) : undefined;
  const proxy = await EgressProxy.listen({
    ...{ socketPath, rules: parsed, credentials, authority, mostBytes, now: Date.now, extraCa: [world.ca] },
    newMasker: maskerOf(credentials.map(({ value }) => value)),
    resolve: world.resolve,
  });
  const forwarder = createServer((near) => {
    const far = connect(socketPath);
    for (const socket of [near, far]) socket.on("error", () => {});
    near.pipe(far).pipe(near);
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
  });
  forwarder.listen(0, "127.0.0.1");
  await once(forwarder, "listening");
  const trust = join(folder, "ca.pem");
  const { writeFile } = await import("node:fs/promises");
  await writeFile(trust, [authority?.certificate ?? "", world.ca].join("\n"));
  return {
    ...{ proxy, socketPath, trust, url: `http://127.0.0.1:${(forwarder.address() as AddressInfo).port}` },
    [Symbol.asyncDispose]: async () => {
      await proxy[Symbol.asyncDispose]();
      await new Promise((resolve) => forwarder.close(resolve));
      rmSync(folder, { recursive: true });
    },
  };
}

/** Names whose owners point into somebody's network. */
const INNER = new Map([
  ["metadata.example.com", [{ address: "169.254.169.254" }]],
  ["inner.example.com", [{ address: "1.1.1.1" }, { address: "127.0.0.1" }]],
  ["mapped.example.com", [{ address: "::ffff:127.0.0.1" }]],
  ["six.example.com", [{ address: "::1" }]],
]);

/** What a client sends, as it is, and all that it gets back. */
export async function speak(socketPath: string, bytes: string | Buffer): Promise<string> {
  const socket = connect(socketPath);
  let got = "";
  socket.setEncoding("latin1");
  socket.on("data", (chunk) => {
    got += chunk;
  });
  socket.on("error", () => {});
  socket.write(bytes);
  socket.setTimeout(5_000, () => socket.destroy());
  await once(socket, "close");
  return got;
}

const run = promisify(execFile);

/** A program of this machine, through the proxy. */
export async function client(
  door: Door,
  program: string,
  args: readonly string[],
): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = {
    ...{ PATH: process.env["PATH"], HOME: tmpdir(), LANG: "C" },
    ...{ http_proxy: door.url, https_proxy: door.url, HTTP_PROXY: door.url, HTTPS_PROXY: door.url },
    ...{ SSL_CERT_FILE: door.trust, CURL_CA_BUNDLE: door.trust, GIT_SSL_CAINFO: door.trust, GIT_TERMINAL_PROMPT: "0" },
  };
  try {
    const { stdout, stderr } = await run(program, [...args], { env, timeout: 20_000 });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout = "", stderr = "" } = error as { code?: number; stdout?: string; stderr?: string };
    return { code: typeof code === "number" ? code : -1, stdout, stderr };
  }
}

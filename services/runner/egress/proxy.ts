import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { connect, type Socket } from "node:net";
import { type Duplex, duplexPair } from "node:stream";
import { pipeline } from "node:stream/promises";
import { TLSSocket } from "node:tls";
import { decideEgress, type EgressRule, formatEgressRule } from "../../shared/egress.ts";
import type { Masker } from "../../shared/mask.ts";
import type { Resolve } from "./addresses.ts";
import type { Authority } from "./authority.ts";
import { type Credential, hasCredentialFor } from "./credentials.ts";
import { exchange } from "./exchange.ts";
import { expectServerName } from "./hello.ts";
import { ByteAllowance } from "./meter.ts";
import { EgressRecords, type Entry } from "./records.ts";
import { allowed, EgressRefusal } from "./refusal.ts";
import { expectHostHeader, type Origin, parseAbsolute, parseAuthority } from "./request.ts";

/** What all ways out of a runner have in common. */
export type WayOutOptions = {
  readonly resolve: Resolve;
  /** PEM of certificate authorities beside the well-known ones. */
  readonly extraCa: readonly string[];
  readonly now: () => number;
};

export type ProxyOptions = WayOutOptions & {
  readonly rules: readonly EgressRule[];
  readonly credentials: readonly Credential[];
  /** Masks the credentials in what comes back. */
  readonly newMasker: () => Masker;
  /** Ends TLS where requests must be read; undefined where none must. */
  readonly authority: Authority | undefined;
  readonly mostBytes: number;
};

const MAX_CONNECTIONS = 64;
const MAX_REQUESTS = 1_000;
const CONNECT_MS = 10_000;
const IDLE_MS = 120_000;

/** Whether a call's requests to somewhere must be read: then its sandbox has to trust an authority of ours. */
export function mustRead(rules: readonly EgressRule[], credentials: readonly Credential[]): boolean {
  return credentials.length > 0 || rules.some(({ methods, path }) => methods !== undefined || path !== undefined);
}

/**
 * The only way out of one sandbox. Who asks is known by the socket it asks on, and by nothing that it says. In this
 * order, and the first thing that is wrong is the one answered:
 *
 *   1 it is a request to a proxy, and names one host and port     REQUEST_INVALID, HOST_INVALID
 *   2 a rule of the call allows it                                NO_RULE, METHOD_..., PATH_...
 *   3 (HTTP) the Host header says the same                        HOST_HEADER_MISMATCH
 *   4 the name has addresses, all of them public                  NO_ADDRESS, ADDRESS_NOT_PUBLIC
 *   5 (CONNECT) what is said is TLS that plainly names the host   NOT_TLS, SNI_...
 *   6 (TLS ended here) each request passes 2 and 3 again
 *
 * A connection to the other side serves one request: nothing that is smuggled into it meets anybody else's.
 */
export class EgressProxy implements AsyncDisposable {
  readonly #options: ProxyOptions;
  readonly #server: Server;
  readonly #allowance: ByteAllowance;
  readonly #open = new Set<Duplex>();
  readonly records = new EgressRecords();
  #requests = 0;
  #socketPath: string | undefined;

  /** One that listens nowhere: for this process alone, by `connect`. */
  constructor(options: ProxyOptions) {
    this.#options = options;
    this.#allowance = new ByteAllowance(options.mostBytes);
    this.#server = this.#newServer(() => undefined);
    this.#server.maxConnections = MAX_CONNECTIONS;
    this.#server.on("connect", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      void this.#connect(request, socket as Socket, head);
    });
  }

  /** @param socketPath inside a directory that only the sandbox and we reach. */
  static async listen({ socketPath, ...options }: ProxyOptions & { readonly socketPath: string }) {
    const proxy = new EgressProxy(options);
    proxy.#socketPath = socketPath;
    proxy.#server.listen(socketPath);
    await once(proxy.#server, "listening");
    chmodSync(socketPath, 0o666); // the sandbox is another user; who reaches the directory decides
    return proxy;
  }

  /** A connection from within this process, as one whose TLS has ended here: HTTP/1.1 to this origin. */
  connect(origin: Origin): Duplex {
    const [near, far] = duplexPair();
    near.on("close", () => far.destroy());
    far.on("close", () => near.destroy());
    this.#newServer(() => origin).emit("connection", far);
    return near;
  }

  get usedBytes(): number {
    return this.#allowance.used;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#open) socket.destroy();
    this.#server.closeAllConnections();
    await closed;
    if (this.#socketPath !== undefined) rmSync(this.#socketPath, { force: true });
  }

  #newServer(originOf: () => Origin | undefined): Server {
    const server = createServer({
      requireHostHeader: false,
      maxHeaderSize: 32 << 10,
      headersTimeout: 20_000,
      requestTimeout: IDLE_MS,
    });
    server.on("request", (request, response) => void this.#serve(request, response, originOf()));
    server.on("connection", (socket) => this.#track(socket));
    // What the parser takes for no request, two lengths for instance, is answered and the connection closed.
    server.on("clientError", (_, socket) => {
      if (!socket.writable) return; // it was broken off, and nobody hears an answer
      const refusal = new EgressRefusal(
        "REQUEST_INVALID",
        "This is no HTTP/1.1 request that can be read in one way only.",
      );
      this.records.add({ kind: "http", host: "", port: 0, method: "", path: "" }, this.#options.now()).refused(refusal);
      socket.end(rawAnswer(refusal));
    });
    return server;
  }

  #track(socket: Duplex): void {
    this.#open.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => this.#open.delete(socket));
  }

  /** A request in clear, or out of a TLS that ended here. */
  async #serve(request: IncomingMessage, response: ServerResponse, through: Origin | undefined): Promise<void> {
    const entry = this.records.add(
      { kind: "http", host: through?.host ?? "", port: through?.port ?? 0, ...shown(request) },
      this.#options.now(),
    );
    response.on("error", () => {});
    try {
      this.#count();
      const { origin, target } =
        through === undefined ? parseAbsolute(request.url ?? "") : { origin: through, target: request.url ?? "" };
      entry.to(origin.host, origin.port, pathOf(target));
      if (!target.startsWith("/") || request.method === "TRACE")
        throw new EgressRefusal("REQUEST_INVALID", "A request names a path, and is no TRACE.");
      const { host, port } = origin;
      const asked = { kind: "http", host, port, method: request.method ?? "", target } as const;
      const { rule } = allowed(decideEgress(this.#options.rules, asked));
      entry.by(formatEgressRule(rule));
      expectHostHeader(request, origin);
      const place = await this.#options.resolve(host, port);
      const { credentials, newMasker, extraCa } = this.#options;
      await exchange({
        request,
        response,
        asked,
        origin,
        place,
        credentials,
        newMasker,
        extraCa,
        entry,
        allowance: this.#allowance,
        idleMs: IDLE_MS,
      });
    } catch (error) {
      this.#refuse(error, entry, (refusal) => {
        if (response.headersSent) return void response.destroy();
        const body = refusal.body(entry.id);
        response.writeHead(refusal.status, { ...answerHeaders(refusal), "content-length": Buffer.byteLength(body) });
        response.end(request.method === "HEAD" ? undefined : body);
      });
    } finally {
      entry.end(this.#options.now());
    }
  }

  async #connect(request: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    this.#track(socket);
    const entry = this.records.add(
      { kind: "connect", host: "", port: 0, method: "CONNECT", path: "" },
      this.#options.now(),
    );
    let answered = false;
    try {
      this.#count();
      const asked = { kind: "connect", ...parseAuthority(request.url ?? "") } as const;
      entry.to(asked.host, asked.port, "");
      const { rule, inspect } = allowed(decideEgress(this.#options.rules, asked));
      entry.by(formatEgressRule(rule));
      const read = inspect || this.#mayNeedCredential(asked.host, asked.port);
      const place = await this.#options.resolve(asked.host, asked.port);
      const far = read ? undefined : await this.#dial(place);
      socket.write("HTTP/1.1 200 Connection Established\r\n\r\n");
      answered = true;
      if (head.length > 0) socket.unshift(head);
      await expectServerName(socket, asked.host);
      if (far === undefined) await this.#endTls(socket, asked.host, asked.port);
      else await this.#tunnel(socket, far, entry);
    } catch (error) {
      this.#refuse(error, entry, (refusal) => {
        if (!answered) socket.end(rawAnswer(refusal, entry.id));
        // Fatal, access_denied: RFC 8446, 6.2.
        else if (socket.writable) socket.end(Buffer.from([21, 3, 1, 0, 2, 2, 49]));
      });
    } finally {
      entry.end(this.#options.now());
    }
  }

  #mayNeedCredential(host: string, port: number): boolean {
    return hasCredentialFor(this.#options.credentials, { kind: "connect", host, port });
  }

  #count(): void {
    if (++this.#requests > MAX_REQUESTS) {
      throw new EgressRefusal("TOO_MANY_REQUESTS", `The call has made the ${MAX_REQUESTS} requests it is allowed.`);
    }
  }

  async #dial({ address, port }: { address: string; port: number }): Promise<Socket> {
    const far = connect({ host: address, port, timeout: CONNECT_MS });
    this.#track(far);
    far.on("timeout", () => far.destroy(new Error("timed out")));
    try {
      await once(far, "connect");
    } catch (error) {
      throw upstreamFailed(error);
    }
    far.setTimeout(IDLE_MS);
    return far;
  }

  /** Bytes that we cannot read; only their number is known. */
  async #tunnel(near: Socket, far: Socket, entry: Entry): Promise<void> {
    const both = [
      pipeline(near, this.#allowance.through(entry.sent), far),
      pipeline(far, this.#allowance.through(entry.received), near),
    ];
    const ended = await Promise.allSettled(both);
    const refusal = ended.find((each) => each.status === "rejected" && each.reason instanceof EgressRefusal);
    if (refusal?.status === "rejected") throw refusal.reason;
  }

  async #endTls(socket: Socket, host: string, port: number): Promise<void> {
    const { authority, now } = this.#options;
    if (authority === undefined) throw new Error("a sandbox whose requests must be read has no authority");
    const secureContext = await authority.contextFor(host, now());
    const secure = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols: ["http/1.1"] });
    const origin = { scheme: "https", host, port } as const;
    const server = this.#newServer(() => origin);
    server.emit("connection", secure);
    await once(secure, "close").catch(() => {});
    server.closeAllConnections();
  }

  #refuse(error: unknown, entry: Entry, say: (refusal: EgressRefusal) => void): void {
    const refusal = error instanceof EgressRefusal ? error : upstreamFailed(error);
    entry.refused(refusal);
    say(refusal);
  }
}

export function upstreamFailed(error: unknown): EgressRefusal {
  const code = error instanceof Error && "code" in error ? String(error.code) : "it closed the connection";
  return new EgressRefusal("UPSTREAM_FAILED", `The server could not be talked to (${code}).`);
}

function shown(request: IncomingMessage): { method: string; path: string } {
  return { method: request.method ?? "", path: pathOf(request.url ?? "") };
}

/** A query may hold what is nobody's business. */
function pathOf(target: string): string {
  return target.split(/[?#]/, 1)[0] ?? "";
}

function answerHeaders(refusal: EgressRefusal): Record<string, string> {
  const rule = refusal.missing === undefined ? {} : { "x-interlock-missing-rule": refusal.missing };
  return { "content-type": "application/json", "x-interlock-refused": refusal.reason, ...rule, connection: "close" };
}

function rawAnswer(refusal: EgressRefusal, id: string = randomUUID()): string {
  const body = refusal.body(id);
  const headers = Object.entries({ ...answerHeaders(refusal), "content-length": String(Buffer.byteLength(body)) });
  const lines = headers.map(([name, value]) => `${name}: ${value}`).join("\r\n");
  return `HTTP/1.1 ${refusal.status} Refused by Interlock ${refusal.reason}\r\n${lines}\r\n\r\n${body}`;
}

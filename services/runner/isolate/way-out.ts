import { once } from "node:events";
import { type IncomingMessage, request as requestHttp } from "node:http";
import { z } from "zod";
import { METHODS } from "../../shared/egress.ts";
import { parseHostName } from "../../shared/host-name.ts";
import { parseJson } from "../../shared/json.ts";
import type { RunResult, RunSpec } from "../backend.ts";
import type { CallSecrets } from "../call-secrets.ts";
import { EgressProxy, upstreamFailed, type WayOutOptions } from "../egress/proxy.ts";
import { EgressRefusal } from "../egress/refusal.ts";
import type { Origin } from "../egress/request.ts";

/** Of one answer: base64 of it fits a message to a worker. */
const MAX_BODY_BYTES = 4 << 20;

/** Names of headers but those that say how a message is sent, which are not a program's to say. */
const HEADER_NAME =
  /^(?!(?:host|content-length|connection|keep-alive|transfer-encoding|te|trailer|upgrade|expect|accept-encoding|proxy-.*)$)[!#$%&'*+.^_`|~\w-]+$/i;

/** What a program wrote, or a worker that was taken over. */
const asked = z.strictObject({
  url: z.string().max(8192),
  method: z.enum(METHODS),
  headers: z
    .array(
      z.tuple([
        z.string().max(256).regex(HEADER_NAME, "is no header's name, or of one that is set outside; leave it out"),
        z
          .string()
          .max(8192)
          .regex(/^[\t\x20-\x7e\x80-\xff]*$/, "holds characters that no header may"),
      ]),
    )
    .max(64),
  body: z.base64().nullable(),
});

/** `fetch` of one run: the very proxy of the containers, with this runner as its only client. */
export class WayOut implements AsyncDisposable {
  readonly #proxy: EgressProxy;
  readonly #mostBytes: number;

  constructor({ egress: rules, limits }: RunSpec, { credentials, newByteMasker }: CallSecrets, options: WayOutOptions) {
    this.#mostBytes = limits.egressBytes;
    this.#proxy = new EgressProxy({
      ...{ ...options, rules, credentials, newMasker: newByteMasker, mostBytes: limits.egressBytes },
      authority: undefined, // nobody speaks TLS to it
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#proxy[Symbol.asyncDispose]();
  }

  /** As the standard library inside reads it. */
  readonly fetch = async (json: string, signal: AbortSignal): Promise<string> => {
    try {
      return JSON.stringify({ ok: true, value: await this.#perform(json, signal) });
    } catch (error) {
      const { reason, message, missing } = error instanceof EgressRefusal ? error : this.#brokenOff(error);
      return JSON.stringify({ ok: false, error: { reason, message, missingRule: missing } });
    }
  };

  /** What it did, on the result of its run. */
  addTo(result: RunResult): RunResult {
    const { enforcement, usage } = result;
    return {
      ...result,
      usage: { ...usage, egressBytes: this.#proxy.usedBytes },
      enforcement: { ...enforcement, enforced: [...enforcement.enforced, "egress-filter"] },
      egress: this.#proxy.records.list(),
    };
  }

  async #perform(json: string, signal: AbortSignal): Promise<object> {
    const { method, origin, path, headers, body } = parseRequest(json);
    const outgoing = requestHttp({
      ...{ method, path, headers, signal, setHost: false },
      createConnection: () => this.#proxy.connect(origin),
    });
    outgoing.on("error", () => {}); // whoever waits for its answer hears of it
    try {
      const answered = once(outgoing, "response", { signal }) as Promise<[IncomingMessage]>;
      outgoing.end(body);
      const [incoming] = await answered;
      const bytes = await bodyOf(incoming);
      const reason = incoming.headers["x-interlock-refused"];
      if (reason !== undefined) throw refusalIn(incoming, bytes);
      return { status: incoming.statusCode, headers: pairsOf(incoming), body: bytes.toString("base64") };
    } finally {
      outgoing.destroy();
    }
  }

  #brokenOff(error: unknown): EgressRefusal {
    if (this.#proxy.usedBytes < this.#mostBytes) return upstreamFailed(error);
    return new EgressRefusal(
      "BYTES_EXCEEDED",
      `The call has used the ${this.#mostBytes} bytes of egress it is allowed.`,
    );
  }
}

/** @throws EgressRefusal */
function parseRequest(json: string) {
  const invalid = (why: string): EgressRefusal =>
    new EgressRefusal("REQUEST_INVALID", `This cannot be fetched: ${why}`);
  const parsed = asked.safeParse(jsonIn(json));
  if (!parsed.success) throw invalid(z.prettifyError(parsed.error));
  const { method, body } = parsed.data;
  const url = URL.parse(parsed.data.url);
  const scheme = url?.protocol === "https:" ? "https" : url?.protocol === "http:" ? "http" : undefined;
  if (url === null || scheme === undefined) throw invalid("its address is none of http or https.");
  if (url.username !== "" || url.password !== "") throw invalid("its address holds a user name; leave it out.");
  if (body !== null && (method === "GET" || method === "HEAD")) throw invalid(`${method} has no body.`);
  const name = parseHostName(url.hostname);
  const host = name.kind === "name" ? name.name : url.hostname; // one that is none is refused, and recorded, by the proxy
  const port = url.port === "" ? (scheme === "https" ? 443 : 80) : Number(url.port);
  const origin: Origin = { scheme, host, port };
  const bytes = body === null ? undefined : Buffer.from(body, "base64");
  const own = {
    host: `${host}:${port}`,
    "accept-encoding": "identity",
    ...(bytes && { "content-length": bytes.length }),
  };
  const headers = { ...Object.fromEntries(parsed.data.headers), ...own };
  return { method, origin, path: url.pathname + url.search, headers, body: bytes };
}

function jsonIn(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return undefined;
  }
}

/** @throws EgressRefusal when it is too long to be handed inside; an Error when it breaks off. */
async function bodyOf(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) {
      throw new EgressRefusal(
        "BODY_TOO_LARGE",
        `The answer is longer than the ${MAX_BODY_BYTES} bytes that fetch takes.`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function pairsOf({ headers }: IncomingMessage): [string, string][] {
  return Object.entries(headers).map(([name, value]) => [
    name,
    Array.isArray(value) ? value.join(", ") : (value ?? ""),
  ]);
}

const refusalBody = z.object({ error: z.object({ message: z.string() }) });

/** The proxy's own answer; to HEAD there is no body. */
function refusalIn({ headers }: IncomingMessage, body: Buffer): EgressRefusal {
  const reason = String(headers["x-interlock-refused"]);
  const missing = headers["x-interlock-missing-rule"];
  const said = refusalBody.safeParse(jsonIn(body.toString()));
  const message = said.success ? said.data.error.message : `The request was refused: ${reason}.`;
  return new EgressRefusal(
    reason as EgressRefusal["reason"],
    message,
    missing === undefined ? missing : String(missing),
  );
}

import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { z } from "zod";
import type { Headers } from "../shared/identity.ts";
import { JsonError, parseJson } from "../shared/json.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller } from "../shared/rpc/types.ts";
import {
  evaluate,
  evaluateAll,
  evaluationSchema,
  evaluationsSchema,
  type Judge,
  problemText,
  searchActions,
  searchResources,
  searchSchemas,
  searchSubjects,
} from "./authzen.ts";
import type { ToolFacts } from "./facts.ts";
import type { Pdp } from "./service.ts";

/** AuthZEN 1.0 over HTTP: paths, headers and status codes as the specification has them. Operators' keys only. */

export type AuthzenOptions = {
  readonly listen: string;
  /** What metadata names itself by: the URL that callers use. Without one, where it listens. */
  readonly baseUrl: string | undefined;
  readonly tls: { readonly cert: Buffer; readonly key: Buffer } | undefined;
  readonly authenticate: (headers: Headers) => Caller;
  readonly pdp: Pick<Pdp, "decide" | "policyOf">;
  readonly tools: readonly ToolFacts[];
  readonly now: () => number;
  readonly log: Log;
};

const MAX_BODY_BYTES = 1 << 20;
const MAX_REQUEST_ID = 256;
const REQUEST_TIMEOUT_MS = 10_000;

/** An answer that is an HTTP status and a sentence. */
class HttpError extends Error {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

type Endpoint = { readonly metadata: string; readonly answer: (body: unknown, judge: Judge) => unknown };

function endpoint<S extends z.ZodType>(
  metadata: string,
  schema: S,
  answer: (asked: z.output<S>, judge: Judge) => unknown,
): Endpoint {
  return { metadata, answer: (body, judge) => answer(parse(schema, body), judge) };
}

function parse<S extends z.ZodType>(schema: S, body: unknown): z.output<S> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new HttpError(400, problemText(parsed.error));
}

const ENDPOINTS = new Map<string, Endpoint>([
  ["/access/v1/evaluation", endpoint("access_evaluation_endpoint", evaluationSchema, evaluate)],
  [
    "/access/v1/evaluations",
    endpoint("access_evaluations_endpoint", evaluationsSchema, (asked, judge) => {
      const many = (asked.evaluations ?? []).length > 0;
      return many ? evaluateAll(asked, judge) : evaluate(parse(evaluationSchema, asked), judge);
    }),
  ],
  ["/access/v1/search/subject", endpoint("search_subject_endpoint", searchSchemas.subject, searchSubjects)],
  ["/access/v1/search/resource", endpoint("search_resource_endpoint", searchSchemas.resource, searchResources)],
  ["/access/v1/search/action", endpoint("search_action_endpoint", searchSchemas.action, searchActions)],
]);
const METADATA = "/.well-known/authzen-configuration";

export type AuthzenServer = { readonly url: string } & AsyncDisposable;

/** @throws Error naming the address when it cannot listen. */
export async function startAuthzen(options: AuthzenOptions): Promise<AuthzenServer> {
  const { tls, log } = options;
  let url = "";
  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    serve(request, response, options, url).catch((error: unknown) => {
      log.error({ err: error }, "authzen.fault");
      response.destroy();
    });
  };
  const server = tls === undefined ? createServer(onRequest) : createTlsServer(tls, onRequest);
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  const [host = "", port = ""] = options.listen.split(":");
  const failed = once(server, "error").then(([error]) => {
    throw new Error(`AuthZEN cannot listen on ${options.listen}: ${(error as Error).message}`, { cause: error });
  });
  failed.catch(() => {}); // awaited here, or never
  server.listen(Number(port), host);
  await Promise.race([once(server, "listening"), failed]);
  const bound = (server.address() as AddressInfo).port;
  url = options.baseUrl ?? `${tls === undefined ? "http" : "https"}://${host}:${bound}`;
  return {
    url,
    [Symbol.asyncDispose]: async () => {
      if (!server.listening) return;
      const closed = once(server, "close");
      server.close();
      server.closeIdleConnections();
      await closed;
    },
  };
}

async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  options: AuthzenOptions,
  url: string,
): Promise<void> {
  const id = request.headers["x-request-id"];
  if (typeof id === "string" && id.length <= MAX_REQUEST_ID) response.setHeader("X-Request-ID", id);
  response.setHeader("Cache-Control", "no-store");
  try {
    const answer = await answerTo(request, options, url);
    response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(answer));
  } catch (thrown) {
    const { status, message, headers } = errorOf(thrown, options.log);
    if (!request.complete) response.setHeader("Connection", "close");
    response.writeHead(status, { "Content-Type": "text/plain; charset=utf-8", ...headers }).end(message);
  }
}

async function answerTo(request: IncomingMessage, options: AuthzenOptions, url: string): Promise<unknown> {
  const path = new URL(request.url ?? "/", "http://pdp").pathname;
  if (path === METADATA) {
    requireMethod(request, "GET");
    return metadataOf(url);
  }
  const found = ENDPOINTS.get(path);
  if (found === undefined)
    throw new HttpError(404, `There is nothing at ${path.slice(0, 100)}; ${METADATA} lists what there is.`);
  requireMethod(request, "POST");
  const { tenant } = operatorOf(request, options);
  if (!/^application\/json\s*(;|$)/i.test(request.headers["content-type"] ?? "")) {
    throw new HttpError(400, "Send the request as Content-Type: application/json.");
  }
  const body = jsonOf(await bodyOf(request));
  const { pdp, tools, now } = options;
  return found.answer(body, { tenant, tools, decide: pdp.decide, policy: pdp.policyOf(tenant), nowMs: now() });
}

/** Section 9 of the specification. */
function metadataOf(url: string): Readonly<Record<string, string>> {
  const endpoints = [...ENDPOINTS].map(([path, { metadata }]) => [metadata, url + path]);
  return { policy_decision_point: url, ...Object.fromEntries(endpoints) };
}

function requireMethod(request: IncomingMessage, method: string): void {
  if (request.method !== method) throw new HttpError(405, `Send it by ${method}.`, { Allow: method });
}

function operatorOf(request: IncomingMessage, { authenticate }: AuthzenOptions): Extract<Caller, { kind: "person" }> {
  const caller = authenticate({
    get: (name) => {
      const value = request.headers[name];
      return typeof value === "string" ? value : undefined;
    },
  });
  if (caller.kind === "person" && caller.roles.includes("operator")) return caller;
  throw new HttpError(403, "Only operators may ask the policy; use an operator's key.");
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw new HttpError(413, `Send at most ${MAX_BODY_BYTES} bytes.`);
    chunks.push(chunk);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks));
  } catch {
    throw new HttpError(400, "The request is not UTF-8 text.");
  }
}

function jsonOf(text: string): unknown {
  if (text.trim() === "") throw new HttpError(400, "The request is empty; send a JSON object.");
  try {
    return parseJson(text);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new HttpError(400, error.path === "" ? error.message : `${error.path}: ${error.message}`);
  }
}

function errorOf(thrown: unknown, log: Log): HttpError {
  if (thrown instanceof HttpError) return thrown;
  const error = RpcError.from(thrown);
  if (error.code === "UNAUTHENTICATED") {
    return new HttpError(401, error.message.replace("metadata", "the header"), { "WWW-Authenticate": "Bearer" });
  }
  log.error({ err: thrown }, "authzen.fault");
  return new HttpError(500, "An internal error; the operator's log has its cause.");
}

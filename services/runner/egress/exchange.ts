import { once } from "node:events";
import { type IncomingMessage, type RequestOptions, request as requestHttp, type ServerResponse } from "node:http";
import { request as requestHttps } from "node:https";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { rootCertificates } from "node:tls";
import type { EgressRequest } from "../../shared/egress.ts";
import type { Masker } from "../../shared/mask.ts";
import type { Place } from "./addresses.ts";
import { type Credential, withCredentials } from "./credentials.ts";
import type { ByteAllowance } from "./meter.ts";
import type { Entry } from "./records.ts";
import { EgressRefusal } from "./refusal.ts";
import { endToEnd, type Origin } from "./request.ts";

export type Exchange = {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly asked: Extract<EgressRequest, { kind: "http" }>;
  readonly origin: Origin;
  readonly place: Place;
  readonly credentials: readonly Credential[];
  readonly newMasker: () => Masker;
  readonly extraCa: readonly string[];
  readonly entry: Entry;
  readonly allowance: ByteAllowance;
  readonly idleMs: number;
};

/**
 * One request that is allowed, to the place it was checked for, and its answer back. What a credential was put into
 * comes back masked, so it must be readable: its answer may not be compressed.
 * @throws EgressRefusal, or an Error of the connection.
 */
export async function exchange(from: Exchange): Promise<void> {
  const { request, response, asked, entry, allowance } = from;
  const { target, headers, injected } = withCredentials(from.credentials, asked, endToEnd(request.headers));
  const outgoing = open(from, target, injected ? { ...headers, "accept-encoding": "identity" } : headers);
  const gone = (): void => void outgoing.destroy();
  response.on("close", gone);
  try {
    const answer = once(outgoing, "response") as Promise<[IncomingMessage]>;
    const sent = pipeline(request, allowance.through(entry.sent), outgoing);
    sent.catch(() => {});
    // A server may answer before it has read everything; what it refuses to read is its own affair.
    const [incoming] = await Promise.race([answer, sent.then(() => answer)]);
    incoming.on("error", () => {});
    await giveBack(from, incoming, injected);
  } finally {
    response.off("close", gone);
    outgoing.destroy();
  }
}

function open({ asked, origin, place, extraCa, idleMs }: Exchange, path: string, headers: RequestOptions["headers"]) {
  const options: RequestOptions = {
    ...{ host: place.address, port: place.port, method: asked.method, path, timeout: idleMs },
    headers: { ...headers, host: hostHeader(origin), connection: "close" },
    agent: false,
    setHost: false,
  };
  const outgoing =
    origin.scheme === "http"
      ? requestHttp(options)
      : requestHttps({
          ...options,
          servername: origin.host,
          ca: [...rootCertificates, ...extraCa],
          minVersion: "TLSv1.2",
        });
  outgoing.on("timeout", () => outgoing.destroy(new Error("timed out")));
  outgoing.on("error", () => {}); // whoever waits for its answer hears of it
  return outgoing;
}

function hostHeader({ scheme, host, port }: Origin): string {
  return port === (scheme === "https" ? 443 : 80) ? host : `${host}:${port}`;
}

async function giveBack(
  { response, entry, allowance, newMasker }: Exchange,
  incoming: IncomingMessage,
  injected: boolean,
) {
  const status = incoming.statusCode ?? 502;
  entry.answered(status);
  const headers = endToEnd(incoming.headers);
  if (injected) {
    const encoding = headers["content-encoding"];
    if (encoding !== undefined && encoding !== "identity") {
      const why =
        "The server compressed an answer that must be read for a credential in it, though it was asked not to.";
      throw new EgressRefusal("RESPONSE_NOT_READABLE", why);
    }
    delete headers["content-length"]; // masking may change it
    for (const [name, value] of Object.entries(headers)) headers[name] = maskedValue(value, newMasker);
  }
  // What only we say: nobody takes a server's word for a refusal of ours.
  for (const name of Object.keys(headers)) if (name.startsWith("x-interlock-")) delete headers[name];
  response.writeHead(status, headers);
  const masking = injected ? [maskingStream(newMasker())] : [];
  await pipeline([incoming, allowance.through(entry.received), ...masking, response]);
}

function maskedValue(value: string | string[], newMasker: () => Masker): string | string[] {
  if (typeof value !== "string") return value.map((each) => maskedValue(each, newMasker) as string);
  const masker = newMasker();
  return masker.write(value) + masker.end();
}

/** Over bytes, one character each, so that what is no text passes as it is. */
function maskingStream(masker: Masker): Transform {
  return new Transform({
    transform: (chunk: Buffer, _, done) => done(null, Buffer.from(masker.write(chunk.toString("latin1")), "latin1")),
    flush: (done) => done(null, Buffer.from(masker.end(), "latin1")),
  });
}

import { later, tell } from "./calls.ts";
import { bytesOf, define, demand, isView, outside, parse, stringify, toBytes, toText } from "./host.ts";
import { URL } from "./url.ts";

// Requests to the world. Each goes out alone, and what it may reach is decided outside: this is convenience.
type Pair = [name: string, value: string];
type Options = { method?: unknown; headers?: unknown; body?: unknown; redirect?: unknown };
type Answer = { readonly status: number; readonly headers: Pair[]; readonly body: string };

class FetchError extends TypeError {
  override readonly name = "FetchError";
  constructor(fields: { message: string }) {
    super(fields.message);
    tell(this, fields);
  }
}
define("FetchError", FetchError);
class ResponseHeaders {
  readonly #pairs: Pair[];
  constructor(pairs: Pair[]) {
    this.#pairs = pairs;
  }
  get(name: unknown): string | null {
    const key = String(name).toLowerCase();
    return this.#pairs.find(([each]) => each === key)?.[1] ?? null;
  }
  has(name: unknown): boolean {
    return this.get(name) !== null;
  }
  forEach(run: (value: string, name: string) => void): void {
    for (const [name, value] of this.#pairs) run(value, name);
  }
  *[Symbol.iterator](): Generator<Pair> {
    for (const [name, value] of this.#pairs) yield [name, value];
  }
}
class FetchedResponse {
  readonly url: string;
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly #body: string;
  constructor(url: string, { status, headers, body }: Answer) {
    this.url = url;
    this.status = status;
    this.headers = new ResponseHeaders(headers);
    this.#body = body;
  }
  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }
  async text(): Promise<string> {
    return demand("utf8.decode", demand("base64.decode", this.#body));
  }
  async json(): Promise<unknown> {
    return parse(await this.text());
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return toBytes(demand("base64.decode", this.#body)).buffer as ArrayBuffer;
  }
}
const MAX_REDIRECTS = 5;
const MAX_REQUEST_CHARS = 1 << 20;
const OPTIONS = ["method", "headers", "body", "redirect"];
const toBody = (body: unknown): string | null => {
  if (body === undefined || body === null) return null;
  if (typeof body === "string") return demand("base64.encode", demand("utf8.encode", body));
  if (isView(body) || body instanceof ArrayBuffer) return demand("base64.encode", toText(bytesOf(body)));
  throw new TypeError("The body of a request is text or bytes.");
};
const toPairs = (headers: unknown): Pair[] => {
  const given = headers ?? {};
  const pairs = Symbol.iterator in (given as object) ? [...(given as Iterable<Pair>)] : Object.entries(given as object);
  return pairs.map(([name, value]) => [String(name).toLowerCase(), String(value)]);
};
const fetchOnce = async (url: URL, method: string, headers: Pair[], body: string | null): Promise<Answer> => {
  const json = stringify({ url: url.href, method, headers, body });
  if (json.length > MAX_REQUEST_CHARS) throw new TypeError(`A request is at most ${MAX_REQUEST_CHARS} characters.`);
  return (await later(FetchError, (id) => outside().fetch(id, json))) as Answer;
};
export const fetch = async (resource: unknown, options: Options = {}): Promise<FetchedResponse> => {
  const unknown = Object.keys(options).find((key) => !OPTIONS.includes(key));
  if (unknown !== undefined) throw new TypeError(`Here fetch takes ${OPTIONS.join(", ")}, not ${unknown}.`);
  const redirect = options.redirect ?? "follow";
  let url = new URL(resource);
  let method = String(options.method ?? "GET").toUpperCase();
  let headers = toPairs(options.headers);
  let body = toBody(options.body);
  if (typeof options.body === "string" && !headers.some(([name]) => name === "content-type"))
    headers = [...headers, ["content-type", "text/plain;charset=UTF-8"]];
  for (let hop = 0; ; hop++) {
    const answer = await fetchOnce(url, method, headers, body);
    const to = answer.headers.find(([name]) => name === "location")?.[1];
    if (redirect === "manual" || to === undefined || ![301, 302, 303, 307, 308].includes(answer.status))
      return new FetchedResponse(url.href, answer);
    if (redirect === "error") throw new TypeError(`${url.href} redirects to ${to}.`);
    if (hop === MAX_REDIRECTS) throw new TypeError(`More than ${MAX_REDIRECTS} redirects.`);
    const next = new URL(to, url.href);
    // What was meant for one server is not told to another.
    if (next.origin !== url.origin) headers = headers.filter(([name]) => name !== "authorization" && name !== "cookie");
    const asGet = answer.status === 303 ? method !== "HEAD" : answer.status < 303 && method === "POST";
    if (asGet) {
      [method, body] = ["GET", null];
      headers = headers.filter(([name]) => !name.startsWith("content-"));
    }
    url = next;
  }
};

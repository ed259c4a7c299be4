import { bytesOf, define, demand, outside, parse, stringify, toBytes, toText } from "./host.ts";
import { TextDecoder } from "./text.ts";

// Calls that leave the isolate.
type Pending = { readonly resolve: (value: unknown) => void; readonly reject: (error: Error) => void };
const pending = new Map<number, Pending>();
let lastAsk = 0;
class ToolError extends Error {
  override readonly name = "ToolError";
  constructor(fields: { message: string }) {
    super(fields.message);
    for (const [key, value] of Object.entries(fields)) if (key !== "message") define(key, value, this);
  }
}
define("ToolError", ToolError);
const send = (kind: string, name: string, argument: unknown): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const json = stringify(argument ?? {});
    if (json === undefined) throw new TypeError(`Give ${name} one object of arguments.`);
    const id = ++lastAsk;
    pending.set(id, { resolve, reject });
    outside().ask(kind, id, name, json);
  });
export const deliver = (id: number, json: string): void => {
  const waiting = pending.get(id);
  pending.delete(id);
  const answer = parse(json) as { ok: boolean; value?: unknown; error?: { message: string } };
  if (answer.ok) waiting?.resolve(answer.value);
  else waiting?.reject(new ToolError(answer.error ?? { message: "It failed." }));
};
export const toolAt = (path: string): object =>
  new Proxy(() => {}, {
    // `await tools.x` asks for a then, and gets none.
    get: (_, part) =>
      typeof part !== "string" || part === "then" ? undefined : toolAt(path === "" ? part : `${path}.${part}`),
    apply: (_target, _this, args: unknown[]) => send("tool", path, args[0]),
    set: () => false,
    defineProperty: () => false,
    setPrototypeOf: () => false,
    getPrototypeOf: () => null,
  });

class Response {
  #fields: { status: number; headers: [string, string][]; body: string };
  constructor(fields: { status: number; headers: [string, string][]; body: string }) {
    this.#fields = fields;
  }
  get status(): number {
    return this.#fields.status;
  }
  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }
  get headers(): Map<string, string> {
    return new Map(this.#fields.headers);
  }
  async bytes(): Promise<Uint8Array> {
    return toBytes(demand("base64.decode", this.#fields.body));
  }
  async arrayBuffer(): Promise<ArrayBuffer> {
    return (await this.bytes()).buffer as ArrayBuffer;
  }
  async text(): Promise<string> {
    return new TextDecoder().decode(await this.bytes());
  }
  async json(): Promise<unknown> {
    return parse(await this.text());
  }
}
export const fetch = async (url: unknown, init: { method?: string; headers?: object; body?: unknown } = {}) => {
  const { method = "GET", headers = {}, body } = init;
  const bytes =
    typeof body === "string" ? demand("utf8.encode", body) : body === undefined ? "" : toText(bytesOf(body));
  const request = { method, headers: Object.entries(headers), body: demand("base64.encode", bytes) };
  return new Response((await send("fetch", String(url), request)) as ConstructorParameters<typeof Response>[0]);
};

import { define, outside, parse, stringify } from "./host.ts";

// Calls that leave the isolate.
type Fields = { readonly message: string };
type Failure = new (fields: Fields) => Error;
type Pending = {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly Failure: Failure;
};
const pending = new Map<number, Pending>();
let lastAsk = 0;
export const tell = (error: Error, fields: object): void => {
  for (const [key, value] of Object.entries(fields)) if (key !== "message") define(key, value, error);
};
class ToolError extends Error {
  override readonly name = "ToolError";
  constructor(fields: Fields) {
    super(fields.message);
    tell(this, fields);
  }
}
define("ToolError", ToolError);
/** What is answered later. */
export const later = (Failure: Failure, ask: (id: number) => void): Promise<unknown> =>
  new Promise((resolve, reject) => {
    const id = ++lastAsk;
    pending.set(id, { resolve, reject, Failure });
    ask(id);
  });
const send = (name: string, argument: unknown): Promise<unknown> =>
  later(ToolError, (id) => {
    const json = stringify(argument ?? {});
    if (json === undefined) throw new TypeError(`Give ${name} one object of arguments.`);
    outside().ask(id, name, json);
  });
export const deliver = (id: number, json: string): void => {
  const waiting = pending.get(id);
  pending.delete(id);
  const answer = parse(json) as { ok: boolean; value?: unknown; error?: { message: string } };
  if (answer.ok) waiting?.resolve(answer.value);
  else waiting?.reject(new waiting.Failure(answer.error ?? { message: "It failed." }));
};
export const toolAt = (path: string): object =>
  new Proxy(() => {}, {
    // `await tools.x` asks for a then, and gets none.
    get: (_, part) =>
      typeof part !== "string" || part === "then" ? undefined : toolAt(path === "" ? part : `${path}.${part}`),
    apply: (_target, _this, args: unknown[]) => send(path, args[0]),
    set: () => false,
    defineProperty: () => false,
    setPrototypeOf: () => false,
    getPrototypeOf: () => null,
  });

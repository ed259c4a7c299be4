/**
 * What every isolate holds before a program runs: the standard library, and what starts a program. The files of this
 * folder are joined into one script (guest-source.ts), which is run once, into a snapshot, and from there is in every
 * isolate. All they have of the outside are the functions of `Host`, each of which takes and gives text and numbers.
 *
 * They live in the program's own world, which can change everything they rely on. They keep what they need from before
 * the program ran, but they serve honest programs: the worker and the runner believe nothing they say.
 */

export type Host = {
  readonly log: (stream: string, text: string) => void;
  /** A call that is answered later, by `deliver`. */
  readonly ask: (id: number, tool: string, json: string) => void;
  /** A request that is answered later, by `deliver`. */
  readonly fetch: (id: number, json: string) => void;
  /** `tick` is called once so many milliseconds have passed. One alarm at a time: the last. */
  readonly wake: (ms: number) => void;
  /** Answers at once: "r" and the answer, or "e" and what is wrong. Bytes travel as text, one character each. */
  readonly now: (operation: string, a: string, b: string) => string;
};

const held: { host?: Host } = {};

export function outside(): Host {
  const { host } = held;
  if (host === undefined) throw new Error("The standard library is not ready.");
  return host;
}

export function connect(host: Host): void {
  held.host = host;
}

export const { parse, stringify } = JSON;
export const { defineProperty, freeze, setPrototypeOf } = Object;
export const { apply, construct, deleteProperty } = Reflect;
export const { floor, max } = Math;
export const RealDate = Date;
export const realNow = Date.now;
export const fromCharCode = String.fromCharCode;
export const isView = ArrayBuffer.isView;
export const charCodeAt = Function.prototype.call.bind(String.prototype.charCodeAt) as (
  text: string,
  i: number,
) => number;
export const slice = Function.prototype.call.bind(String.prototype.slice) as (
  text: string,
  a: number,
  b?: number,
) => string;

export const define = (name: string, value: unknown, on: object = globalThis): void => {
  defineProperty(on, name, { value, writable: true, configurable: true, enumerable: false });
};
export const demand = (operation: string, a = "", b = ""): string => {
  const said = outside().now(operation, a, b);
  if (said[0] === "r") return slice(said, 1);
  throw new TypeError(slice(said, 1));
};
export const toText = (bytes: Uint8Array): string => {
  let text = "";
  for (let i = 0; i < bytes.length; i += 4096)
    text += apply(fromCharCode, null, bytes.subarray(i, i + 4096) as unknown as number[]);
  return text;
};
export const toBytes = (text: string): Uint8Array => {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = charCodeAt(text, i);
  return bytes;
};
export const bytesOf = (data: unknown): Uint8Array => {
  if (isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  throw new TypeError("Give an ArrayBuffer or a view of one.");
};

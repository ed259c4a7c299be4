import { bytesOf, define, demand, freeze, toBytes, toText } from "./host.ts";

// Text and bytes.
class TextEncoder {
  get encoding(): string {
    return "utf-8";
  }
  encode(text: unknown = ""): Uint8Array {
    return toBytes(demand("utf8.encode", String(text)));
  }
}
export class TextDecoder {
  readonly encoding = "utf-8";
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  constructor(label = "utf-8", options: { fatal?: boolean; ignoreBOM?: boolean } = {}) {
    if (!/^utf-?8$/i.test(label)) throw new RangeError(`Only utf-8 is decoded here, not ${label}.`);
    this.fatal = options.fatal === true;
    this.ignoreBOM = options.ignoreBOM === true;
  }
  decode(data?: unknown): string {
    if (data === undefined) return "";
    return demand("utf8.decode", toText(bytesOf(data)), `${this.fatal ? "f" : ""}${this.ignoreBOM ? "b" : ""}`);
  }
}
define("TextEncoder", TextEncoder);
define("TextDecoder", TextDecoder);
define("btoa", (text: unknown) => demand("base64.encode", String(text)));
define("atob", (text: unknown) => demand("base64.decode", String(text)));

// Random numbers and digests.
const fill = <T extends ArrayBufferView>(view: T): T => {
  const bytes = bytesOf(view);
  bytes.set(toBytes(demand("random", String(bytes.length))));
  return view;
};
const digest = async (algorithm: unknown, data: unknown): Promise<ArrayBuffer> => {
  const name = typeof algorithm === "string" ? algorithm : (algorithm as { name: string }).name;
  return toBytes(demand("digest", String(name), toText(bytesOf(data)))).buffer as ArrayBuffer;
};
define("crypto", freeze({ getRandomValues: fill, randomUUID: () => demand("uuid"), subtle: freeze({ digest }) }));

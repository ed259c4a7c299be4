import { createHash, randomFillSync, randomUUID } from "node:crypto";

/**
 * What a program may have the worker do at once: a fixed table. Text in, text out; bytes are one character each, below
 * 256. Every argument comes from a program that may mean no good. Shared by the worker only, so it imports only Node.
 */
/** Of any binding, printing too, in one run: an honest program does not come near it. */
export const MAX_BINDING_CALLS = 50_000;

export type Operation = (a: string, b: string) => string;

export const OPERATIONS: ReadonlyMap<string, Operation> = new Map<string, Operation>([
  ["utf8.encode", (text) => Buffer.from(text, "utf8").toString("latin1")],
  [
    "utf8.decode",
    (bytes, flags) => {
      const options = { fatal: flags.includes("f"), ignoreBOM: flags.includes("b") };
      return new TextDecoder("utf-8", options).decode(Buffer.from(bytes, "latin1"));
    },
  ],
  ["base64.encode", (bytes) => btoa(bytes)],
  ["base64.decode", (text) => atob(text)],
  [
    "random",
    (count) => {
      const bytes = Number(count);
      if (!Number.isInteger(bytes) || bytes < 0 || bytes > 65_536) throw new Error("At most 65536 bytes at once.");
      return randomFillSync(Buffer.alloc(bytes)).toString("latin1");
    },
  ],
  ["uuid", () => randomUUID()],
  [
    "digest",
    (algorithm, bytes) => {
      const known = DIGESTS.get(algorithm.toUpperCase());
      if (known === undefined) throw new Error(`Use one of ${[...DIGESTS.keys()].join(", ")}.`);
      return createHash(known).update(bytes, "latin1").digest().toString("latin1");
    },
  ],
  ["url.parse", (href, base) => toParts(base === "" ? new URL(href) : new URL(href, base))],
  [
    "url.set",
    (href, change) => {
      const [part, value] = JSON.parse(change) as [string, string];
      if (!SETTABLE.has(part)) throw new Error("An address has no such part.");
      const url = new URL(href);
      (url as unknown as Record<string, string>)[part] = value;
      return toParts(url);
    },
  ],
  ["query.parse", (text) => JSON.stringify([...new URLSearchParams(text)])],
  ["query.format", (pairs) => new URLSearchParams(JSON.parse(pairs) as [string, string][]).toString()],
]);

const DIGESTS = new Map([
  ["SHA-1", "sha1"],
  ["SHA-256", "sha256"],
  ["SHA-384", "sha384"],
  ["SHA-512", "sha512"],
]);

const PARTS = ["protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"] as const;
const SETTABLE: ReadonlySet<string> = new Set(PARTS);

function toParts(url: URL): string {
  return JSON.stringify(Object.fromEntries(["href", "origin", ...PARTS].map((part) => [part, url[part as "href"]])));
}

import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { FileProblems } from "../shared/yaml-file.ts";

/**
 * A policy as it travels and is recorded: its rule files, its table tests, and a signature where there is one. Packed, it
 * is the gzip of each file in turn, by name: `<name> <bytes>\n`, the UTF-8 text, `\n`.
 */
export type Bundle = ReadonlyMap<string, string>;

/** Ed25519 over the digest of all other files; signed.ts. */
export const SIGNATURE_FILE = "policy.sig";

const NAME = /^([A-Za-z0-9][A-Za-z0-9_.-]{0,63}\.csv|tests\/[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\.yaml|policy\.sig)$/;
const MAX_FILES = 1000;
export const MAX_PACKED_BYTES = 4 << 20;
const MAX_TEXT_BYTES = 64 << 20;

export class BundleError extends Error {
  override readonly name = "BundleError";
}

/** The files of a policies directory. @throws FileProblems */
export async function readBundle(dir: string): Promise<Bundle> {
  const names = [...(await list(dir, "")), ...(await list(join(dir, "tests"), "tests/"))].filter((name) =>
    NAME.test(name),
  );
  if (!names.some((name) => name.endsWith(".csv"))) {
    throw problem(dir, "There is no *.csv file with rules here; write policy.csv.");
  }
  const texts = await Promise.all(names.map((name) => readText(join(dir, name))));
  return ordered(names.map((name, i) => [name, texts[i] ?? ""]));
}

async function list(dir: string, prefix: string): Promise<string[]> {
  try {
    return (await readdir(dir)).map((name) => prefix + name);
  } catch (error) {
    if (prefix !== "" && codeOf(error) === "ENOENT") return [];
    throw problem(dir, `The directory cannot be read (${codeOf(error)}); give the one that holds model.conf.`);
  }
}

/** @throws FileProblems */
export async function readText(file: string): Promise<string> {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
  } catch (error) {
    throw problem(file, `The file cannot be read as UTF-8 text (${codeOf(error)}).`);
  }
}

function problem(file: string, message: string): FileProblems {
  return new FileProblems([{ file, line: undefined, field: "", message }]);
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "unreadable";
}

/** @throws BundleError when it is larger than a push may be. */
export async function packBundle(bundle: Bundle): Promise<Uint8Array> {
  const packed = await promisify(gzip)(Buffer.concat(layOut(bundle)));
  if (packed.length > MAX_PACKED_BYTES) {
    throw new BundleError(
      `The policy is ${packed.length} bytes packed, and at most ${MAX_PACKED_BYTES} can be pushed; use roles, prefixes and groups.`,
    );
  }
  return packed;
}

/** @throws BundleError saying what is wrong with it. */
export async function unpackBundle(packed: Uint8Array): Promise<Bundle> {
  if (packed.length > MAX_PACKED_BYTES) throw new BundleError(`It is larger than ${MAX_PACKED_BYTES} bytes.`);
  let bytes: Buffer;
  try {
    bytes = await promisify(gunzip)(packed, { maxOutputLength: MAX_TEXT_BYTES });
  } catch (error) {
    const large = codeOf(error) === "ERR_BUFFER_TOO_LARGE";
    throw new BundleError(large ? `It unpacks to more than ${MAX_TEXT_BYTES} bytes.` : "It is not packed by gzip.");
  }
  const files: [string, string][] = [];
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf(0x0a, at);
    const [, name = "", length = ""] = /^(\S+) (\d{1,9})$/.exec(bytes.toString("latin1", at, end < 0 ? at : end)) ?? [];
    const from = end + 1;
    const until = from + Number(length);
    if (!NAME.test(name) || bytes[until] !== 0x0a)
      throw new BundleError("It is not laid out as files by name and length.");
    try {
      files.push([name, decoder.decode(bytes.subarray(from, until))]);
    } catch {
      throw new BundleError(`${name} is not UTF-8 text.`);
    }
    if (files.length > MAX_FILES) throw new BundleError(`It has more than ${MAX_FILES} files.`);
    at = until + 1;
  }
  const bundle = ordered(files);
  if (bundle.size !== files.length) throw new BundleError("It has a file twice.");
  return bundle;
}

/** SHA-256 of everything but the signature, hex: what is signed. */
export function digestOf(bundle: Bundle): string {
  const hash = createHash("sha256");
  for (const part of layOut(new Map([...bundle].filter(([name]) => name !== SIGNATURE_FILE)))) hash.update(part);
  return hash.digest("hex");
}

function layOut(bundle: Bundle): Buffer[] {
  return [...ordered([...bundle])].flatMap(([name, text]) => {
    const bytes = Buffer.from(text);
    return [Buffer.from(`${name} ${bytes.length}\n`), bytes, Buffer.from("\n")];
  });
}

function ordered(files: readonly (readonly [string, string])[]): Bundle {
  return new Map(files.toSorted(([a], [b]) => (a < b ? -1 : Number(a > b))));
}

import { canonicalJson, type JsonObject, sha256Hex } from "../../shared/json.ts";
import type { Manifest } from "../../shared/manifest.ts";
import type { RunResult } from "../model.ts";

/** What the loop rules know of a call: what makes it the same as another, and what kind of tool it is for. */
export type Signature = {
  /** Equal for calls that are the same: tool and canonical arguments, without those the manifest says to ignore. */
  readonly key: string;
  /** Equal also for calls that differ only in made-up values: ids, timestamps, cursors. Means little without the result. */
  readonly loose: string;
  /** The tool changes something, so its calls are work done, whatever they answer. */
  readonly effects: boolean;
  /** Of a polling tool: so many equal calls with an equal answer in a row. 0: it is none. */
  readonly polls: number;
  /** A call costs money. */
  readonly paid: boolean;
  /** What it answers is untrusted: it may hold what an attacker wrote. */
  readonly untrusted: boolean;
};

export function signatureOf(manifest: Manifest, args: JsonObject, argumentsJson: string): Signature {
  const { name, loops, effects, price, labels } = manifest;
  const meant = loops === undefined || loops.ignore.length === 0 ? argumentsJson : canonicalJson(without(args, loops));
  const key = keyOf(name, meant);
  const acts = effects.some((effect) => effect !== "reads");
  // Where a call changes something, an id is whom it is about: two ids are two deeds.
  const loose = acts ? key : looseKey(name, meant, key);
  return {
    key,
    loose,
    effects: acts,
    polls: loops?.polls ?? 0,
    paid: (price.usd_micros ?? 0) !== 0,
    untrusted: labels.includes("untrusted-input"),
  };
}

/** For calls recorded before there were signatures, and those whose tool is not known. */
export function plainSignature(call: { readonly tool: string; readonly argumentsHash: string }): Signature {
  const key = `${call.tool} ${call.argumentsHash.slice(0, KEY_CHARS)}`;
  return { key, loose: key, effects: true, polls: 0, paid: false, untrusted: true };
}

/** What a run came to, without what changes from run to run. Output beyond 64 KiB counts by its ends and its length. */
export function resultKeyOf({ end, exitCode, resultJson, stdout, error }: RunResult): string {
  const text = `${end} ${exitCode} ${resultJson}\n${stdout}\n${error}`;
  const ends =
    text.length <= 2 * END_CHARS ? text : `${text.slice(0, END_CHARS)}${text.length}${text.slice(-END_CHARS)}`;
  return sha256Hex(withoutVolatile(ends)).slice(0, KEY_CHARS);
}

/** The tool ran and says that it could not: by its end, or as programs that catch their errors say it. */
export function hasFailed({ end, exitCode, error, resultJson }: RunResult): boolean {
  return (
    end !== "exited" ||
    exitCode !== 0 ||
    error !== "" ||
    /^\s*(\{"error"|"?(error|exception|traceback)\b)/i.test(resultJson)
  );
}

const KEY_CHARS = 24;
const END_CHARS = 32 << 10;

/** Where a value made anew may stand: most text is passed over by its first letters. */
const CANDIDATE = /[0-9a-f][0-9a-ftz:.+-]{9,}/gi;
/** UUIDs, ISO 8601 times of day, Unix times of this century in seconds and milliseconds, long hexadecimal numbers. */
const MADE_ANEW = new RegExp(
  [
    /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/,
    /\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?/,
    /\b1[0-9]{9}(?:[0-9]{3})?\b/,
    /\b(?=[0-9a-f]*\d)[0-9a-f]{16,}\b/,
  ]
    .map(({ source }) => source)
    .join("|"),
  "gi",
);
/** Members that are named for what they are. */
const NAMED_ANEW =
  /"(?:[a-z_]{0,20}(?:cursor|request_id|trace_id|nonce|page_token)|attempt|retry|timestamp|ts)":(?:"[^"\\]*"|-?[0-9.]+)/g;

function withoutVolatile(text: string): string {
  return text.replace(CANDIDATE, (found) => found.replace(MADE_ANEW, "~")).replace(NAMED_ANEW, "~");
}

function keyOf(tool: string, text: string): string {
  return `${tool} ${sha256Hex(text).slice(0, KEY_CHARS)}`;
}

function looseKey(tool: string, text: string, key: string): string {
  const loose = withoutVolatile(text);
  return loose === text ? key : keyOf(tool, loose);
}

function without(args: JsonObject, { ignore }: { readonly ignore: readonly string[] }): JsonObject {
  return Object.fromEntries(Object.entries(args).filter(([name]) => !ignore.includes(name)));
}

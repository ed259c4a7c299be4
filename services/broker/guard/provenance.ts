import { type Json, type JsonObject, sha256Hex } from "../../shared/json.ts";
import type { Manifest } from "../../shared/manifest.ts";
import type { Call, Decision } from "../model.ts";
import { normalise, numberOf, squeeze, tokensOf } from "./tokens.ts";

/**
 * Where the values of a call's arguments were seen first. Pure and bounded.
 *
 * P1. The first sighting counts: what an untrusted result brought does not become trusted by a trusted tool's echo, and
 *     what the agent made up does not either. Only the user's own words may overrule an earlier sighting.
 * P2. Whatever is forgotten, cut off or never seen counts as seen nowhere: never as the user's.
 */

export const ORIGINS = ["user", "config", "trusted", "untrusted", "nowhere", "unknown"] as const;
/** `unknown`: seen nowhere, in a session whose user's words nobody has passed on. */
export type Origin = (typeof ORIGINS)[number];

/** What was seen first where, by token: `user`, `nowhere` (in an argument of the agent's), or `trusted` or `untrusted` with the tool's name. */
export type Known = {
  readonly tokens: Map<string, string>;
  /** Whether the user's words, and whether hashes of them, have been passed on. */
  readonly words: boolean;
  readonly hashes: boolean;
};

export const nothingKnown = (): Known => ({ tokens: new Map(), words: false, hashes: false });

/** So many tokens of a session are remembered; the oldest are forgotten first, and count as never seen. */
export const KNOWN = 16_384;
const copyOf = (known: Known): Known => ({ ...known, tokens: new Map(known.tokens) });

/** The mark of a token that the user's runtime passed as a hash. */
const HASHED = "#";

export type Heard = {
  /** The user's own words. */
  readonly text: string;
  /** SHA-256, hex, of normalised tokens of them, for runtimes that keep the words to themselves. */
  readonly hashes: readonly string[];
};

/** These change what is known in place, as the session's record is read. */
export function hear(known: Known, { text, hashes }: Heard): Known {
  for (const token of tokensOf(text)) remember(known, token, "user", true);
  for (const hash of hashes) remember(known, `${HASHED}${hash}`, "user", true);
  return { ...known, words: known.words || text !== "", hashes: known.hashes || hashes.length > 0 };
}

/** What an agent asks for was in its hands before any answer could echo it. */
export function argue(known: Known, argumentsJson: string): void {
  for (const token of tokensOf(argumentsJson)) remember(known, token, "nowhere", false);
}

export function see(known: Known, text: string, tool: string, untrusted: boolean): void {
  const sighting = `${untrusted ? "untrusted" : "trusted"} ${tool}`;
  for (const token of tokensOf(text)) remember(known, token, sighting, false);
}

function remember({ tokens }: Known, token: string, sighting: string, overrules: boolean): void {
  const key = token.length > MOST_TOKEN ? sha256Hex(token) : token;
  const earlier = tokens.get(key);
  if (earlier === sighting || (earlier !== undefined && !overrules)) return;
  tokens.delete(key); // to the end of the line
  tokens.set(key, sighting);
  if (tokens.size <= KNOWN) return;
  for (const oldest of tokens.keys()) {
    tokens.delete(oldest);
    return;
  }
}

const MOST_TOKEN = 128;

/** One value that neither the user nor the operator nor a trusted tool has named. */
export type Foreign = {
  /** As `to[0]`. */
  readonly path: string;
  readonly value: string;
  readonly origin: "untrusted" | "nowhere";
  /** The tool whose result named it first; empty where none did. */
  readonly source: string;
};

export type Provenance = {
  /** Of the values that matter, each once. */
  readonly origins: readonly Origin[];
  readonly foreign: readonly Foreign[];
};

export const NO_PROVENANCE: Provenance = { origins: [], foreign: [] };

/**
 * Of a call to a tool with effects; `saying` came with it. Whom or where something goes (arguments named so, or by the manifest) matters word by
 * word; in other short arguments names with digits, dots or signs matter; in prose only addresses, URLs and account
 * numbers do. Amounts matter where the tool spends.
 */
export function provenanceOf(
  before: Known,
  args: JsonObject,
  manifest: Manifest,
  operator: { readonly known: readonly string[]; readonly user: string },
  saying?: Heard,
): Provenance {
  if (saying !== undefined) return provenanceOf(hear(copyOf(before), saying), args, manifest, operator);
  const known = before;
  const lookup = new Lookup(known, manifest, operator);
  const heard = known.words || known.hashes;
  const origins = new Set<Origin>();
  const foreign: Foreign[] = [];
  for (const { path, name, value } of leavesOf(args)) {
    for (const part of partsOf(name, value, manifest)) {
      const seen = lookup.find(part);
      // A word or a made-up name that is nowhere else says nothing: agents write names, dates and counts of their own.
      if (seen.origin === "nowhere" && part.weight === "light") continue;
      const origin = seen.origin === "nowhere" && !heard ? "unknown" : seen.origin;
      origins.add(origin);
      if (origin === "untrusted" || origin === "nowhere") {
        foreign.push({ path, value: part.text.slice(0, 200), origin, source: seen.source });
      }
    }
  }
  return { origins: ORIGINS.filter((origin) => origins.has(origin)), foreign: foreign.slice(0, MOST_SHOWN) };
}

const MOST_SHOWN = 20;

/** `heavy`: counts also when it was seen nowhere. */
type Part = { readonly text: string; readonly weight: "heavy" | "light"; readonly isAmount?: boolean };

const TARGETS =
  /^(?:id|to|cc|bcc|from|dest(?:ination)?|target|recipients?|receivers?|payee|beneficiary|participants?|attendees?|members?|invitees?|user|username|channel|handle|account|iban|bic|card|phone|number|e?mails?|address(?:es)?|url|uri|link|host|domain|endpoint|webhook|path|repo(?:sitory)?|branch)$|_(?:to|recipients?|account|iban|emails?|address|url|uri|host|phone|channel|user|path|id)$/i;
const PROSE =
  /^(?:subject|title|body|message|text|content|summary|note|comment|reason|description|query|thought|line|code|program)s?$/i;

const AMOUNTS = /amount|price|total|sum|value|cost|fee|deposit|limit|quantity/i;

const EMAIL = /^[^\s@]+@[^\s@]+\.[^\s@]+$/;
const HOST = /^(?:[a-z0-9-]+\.)+[a-z]{2,}$/;
const NUMBERED = /\d/;
const DATE = /^\d{4}-\d\d-\d\d(?:[t ][\d:.z+-]*)?$|^\d{1,2}:\d\d(?::\d\d)?$/;

function partsOf(name: string, value: string | number, manifest: Manifest): Part[] {
  const { targets = [], prose = [] } = manifest.provenance ?? {};
  if (typeof value === "number") return numberPart(name, value, manifest);
  const text = normalise(value).trim();
  if (text === "") return [];
  const isTarget = targets.includes(name) || (TARGETS.test(name) && !prose.includes(name));
  const isProse = prose.includes(name) || (!isTarget && (PROSE.test(name) || text.length > 80 || /\n/.test(text)));
  if (isProse) return strongParts(text);
  if (isStrong(text)) return [{ text, weight: "heavy" }];
  const words = [...new Set(text.split(/[\s,;]+/))].filter((word) => word !== "" && !DATE.test(word));
  if (isTarget) return words.map((word) => ({ text: word, weight: "heavy" }));
  const number = numberOf(text.replace(/^[$€£]/, ""));
  if (number !== undefined && !isTarget) return numberPart(name, Number(number), manifest);
  return words.flatMap((word): Part[] => {
    if (isStrong(word)) return [{ text: word, weight: "heavy" }];
    return NUMBERED.test(word) && word.length >= 4 && numberOf(word) === undefined
      ? [{ text: word, weight: "light" }]
      : [];
  });
}

function numberPart(name: string, value: number, { effects, provenance }: Manifest): Part[] {
  if (effects.includes("spends") && (AMOUNTS.test(name) || provenance?.targets.includes(name) === true)) {
    return [{ text: String(value), weight: "heavy", isAmount: true }];
  }
  return Number.isInteger(value) && value >= 1e6 ? [{ text: String(value), weight: "light" }] : [];
}

/** Of a text: its addresses, URLs and account numbers. */
function strongParts(text: string): Part[] {
  if (!/\d{2}|@|:\/\/|\w\.\w/.test(text)) return [];
  return [...tokensOf(text)].filter(isStrong).map((token) => ({ text: token, weight: "heavy" }));
}

function isStrong(text: string): boolean {
  if (/\s/.test(text))
    return squeeze(text).length >= 10 && /^[a-z]{2}\d{2}|^\+?\d[\d .()/-]+$/.test(text) && !DATE.test(text);
  if (EMAIL.test(text) || /^[a-z][a-z0-9+.-]*:\/\//.test(text) || HOST.test(text)) return true;
  const squeezed = squeeze(text);
  return !DATE.test(text) && /^(?:[a-z]{2}\d{2}[0-9a-z]{8,}|\d{8,})$/.test(squeezed);
}

/** Names what is known of a value: by itself, without its spaces, or by its host. */
class Lookup {
  readonly #known: Known;
  readonly #operator: readonly string[];
  readonly #config: ReadonlySet<string>;

  constructor(
    known: Known,
    manifest: Manifest,
    operator: { readonly known: readonly string[]; readonly user: string },
  ) {
    this.#known = known;
    this.#operator = operator.known;
    this.#config = configTokens(manifest, operator.user);
  }

  find({ text, isAmount = false }: Part): { readonly origin: Origin; readonly source: string } {
    if (isAmount) {
      // As people say it: whole units, hundredths, millionths.
      const value = Number(text);
      const scaled = [value, value / 100, value / 1e6].map((amount) => this.#sighting(String(amount)));
      return readSighting(scaled.find((sighting) => sighting === "user") ?? scaled.find(Boolean));
    }
    const whole = this.#sighting(text) ?? this.#sighting(squeeze(text)) ?? this.#sighting(text.replace(/^[@#+]/, ""));
    if (whole !== undefined || !/^[a-z][a-z0-9+.-]*:\/\//.test(text)) return readSighting(whole);
    const host = /^[a-z][a-z0-9+.-]*:\/\/(?:[^/?#@]*@)?([^/?#:]+)/.exec(text)?.[1] ?? "";
    return readSighting(this.#sighting(host));
  }

  #sighting(token: string): string | undefined {
    if (this.#operator.some((own) => own === token || (own.startsWith("@") && token.endsWith(own)))) return "config";
    if (this.#config.has(token)) return "config";
    const key = token.length > MOST_TOKEN ? sha256Hex(token) : token;
    const { tokens, hashes } = this.#known;
    const seen = tokens.get(key);
    if (seen === "user" || !hashes) return seen;
    return tokens.get(`${HASHED}${sha256Hex(token)}`) ?? seen;
  }
}

function readSighting(sighting: string | undefined): { readonly origin: Origin; readonly source: string } {
  const [origin = "nowhere", source = ""] = (sighting ?? "nowhere").split(" ");
  return { origin: origin as Origin, source };
}

/** What the operator wrote in the manifest's schema, and whom the agent acts for. */
function configTokens(manifest: Manifest, user: string): ReadonlySet<string> {
  const known = CONFIG.get(manifest) ?? tokensOf(wordsOf(manifest.arguments as Json).join(" "));
  CONFIG.set(manifest, known);
  return user === "" ? known : new Set([...known, user.toLowerCase()]);
}

const CONFIG = new WeakMap<Manifest, ReadonlySet<string>>();

/** The values that a schema names: of enum, const and default. */
function wordsOf(schema: Json): string[] {
  if (schema === null || typeof schema !== "object") return [];
  if (Array.isArray(schema)) return schema.flatMap(wordsOf);
  return Object.entries(schema as JsonObject).flatMap(([key, value]) =>
    key === "enum" || key === "const" || key === "default" ? [JSON.stringify(value)] : wordsOf(value),
  );
}

type Leaf = { readonly path: string; readonly name: string; readonly value: string | number };

function leavesOf(value: Json, path = "", name = ""): Leaf[] {
  if (typeof value === "string" || typeof value === "number") return [{ path, name, value }];
  if (value === null || typeof value !== "object") return [];
  if (Array.isArray(value)) return value.flatMap((item: Json, i: number) => leavesOf(item, `${path}[${i}]`, name));
  return Object.entries(value as JsonObject).flatMap(([key, item]) =>
    leavesOf(item, path === "" ? key : `${path}.${key}`, key),
  );
}

/** Only what a tool with effects is told to do can do harm. */
export function provenanceOfCall(known: Known, call: Call, manifest: Manifest, vouched: readonly string[]): Provenance {
  if (!manifest.effects.some((effect) => effect !== "reads")) return NO_PROVENANCE;
  const args = JSON.parse(call.argumentsJson) as JsonObject;
  return provenanceOf(known, args, manifest, { known: vouched, user: call.principal.user }, call.heard);
}

/** Who is asked for approval is told where the values come from. */
export function withProvenance(decision: Decision, provenance: Provenance): Decision {
  if (decision.kind !== "require_approval" || provenance.foreign.length === 0) return decision;
  return { ...decision, reasons: [...decision.reasons, ...foreignReasons(provenance)] };
}

/** For the person who is asked, one sentence a value. */
function foreignReasons({ foreign }: Provenance): string[] {
  return foreign.map(({ path, value, origin, source }) =>
    origin === "untrusted"
      ? `${path}: "${value}" was first seen in a result of ${source}, which is untrusted; the user has not named it.`
      : `${path}: "${value}" was named neither by the user nor by any result.`,
  );
}

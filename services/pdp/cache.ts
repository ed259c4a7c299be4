import type { Rule } from "./casbin.ts";
import type { Decision } from "./decide.ts";
import { type Facts, subjectOf } from "./facts.ts";

/**
 * Decisions of one revision, found again by who asks for which tool and the values of every fact that the candidates
 * read. It lives and dies with its revision, so a change of rules or roles needs no invalidation.
 */

/** Where a decision is kept. */
export type CachedPlace = {
  readonly candidates: readonly Rule[];
  readonly decision: Decision | undefined;
  readonly keep: (decision: Decision) => void;
};

type Entry = {
  readonly candidates: readonly Rule[];
  /** undefined: they read what never comes twice. */
  readonly reads: readonly (readonly string[])[] | undefined;
  readonly decisions: Map<string, Decision>;
};

/** Longer keys cost more than they save. */
const MAX_KEY_LENGTH = 2000;
const ABSENT = 0;

export class DecisionCache {
  readonly #candidatesOf: (facts: Facts) => readonly Rule[];
  readonly #most: number;
  readonly #entries = new Map<string, Entry>();
  #kept = 0;

  /** `most`: entries and decisions together; beyond, all are forgotten at once. */
  constructor(candidatesOf: (facts: Facts) => readonly Rule[], most: number) {
    this.#candidatesOf = candidatesOf;
    this.#most = most;
  }

  find(facts: Facts, request: Readonly<Record<string, unknown>>): CachedPlace {
    const entry = this.#entryOf(facts);
    const { candidates, reads, decisions } = entry;
    const key = reads === undefined ? undefined : keyOf(reads, request);
    if (key === undefined || key.length > MAX_KEY_LENGTH) return { candidates, decision: undefined, keep: () => {} };
    return { candidates, decision: decisions.get(key), keep: (decision) => this.#keep(decisions, key, decision) };
  }

  #keep(decisions: Map<string, Decision>, key: string, decision: Decision): void {
    this.#count();
    decisions.set(key, decision);
  }

  #entryOf(facts: Facts): Entry {
    const { tenant, tool } = facts;
    const at = `${tenant}\0${subjectOf(facts)}\0${tool.name}\0${tool.groups.length === 0 ? "" : JSON.stringify(tool.groups)}`;
    const known = this.#entries.get(at);
    if (known !== undefined) return known;
    const candidates = this.#candidatesOf(facts);
    const entry = { candidates, reads: readsOf(candidates), decisions: new Map<string, Decision>() };
    this.#count();
    this.#entries.set(at, entry);
    return entry;
  }

  #count(): void {
    if (this.#kept++ < this.#most) return;
    this.#entries.clear();
    this.#kept = 1;
  }
}

/** The union of what the candidates' conditions read. */
function readsOf(candidates: readonly Rule[]): readonly (readonly string[])[] | undefined {
  const paths = new Map<string, readonly string[]>();
  for (const { when } of candidates) for (const path of when.reads) paths.set(path.join("\0"), path);
  const found = [...paths.values()];
  return found.some(isClock) ? undefined : found;
}

function isClock([token, field]: readonly string[]): boolean {
  return token === "time" && (field === undefined || field === "unix_ms");
}

function keyOf(reads: readonly (readonly string[])[], request: Readonly<Record<string, unknown>>): string {
  if (reads.length === 0) return "";
  return JSON.stringify(reads.map((path) => valueAt(path, request)));
}

/** In a list of its own, so that no value can pass for one that is not there. */
function valueAt([token = "", ...fields]: readonly string[], request: Readonly<Record<string, unknown>>): unknown {
  let value: unknown = request[`r_${token}`];
  for (const field of fields) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, field)) return [ABSENT, kindAt(value)];
    value = (value as Record<string, unknown>)[field];
  }
  return [value];
}

/** has() tells an object without the field from what is no object. */
function kindAt(value: unknown): string {
  return Array.isArray(value) ? "list" : value === null ? "null" : typeof value;
}

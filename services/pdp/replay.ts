import { breathe } from "./breathe.ts";
import type { Decision, Outcome } from "./decide.ts";
import { type Facts, subjectOf } from "./facts.ts";
import type { Policy } from "./load.ts";

/** Decisions that come out otherwise under another revision, alike ones counted together. */
export type Changed = {
  /** As `agent:support`. */
  readonly subject: string;
  readonly tool: string;
  readonly before: Outcome;
  readonly after: Outcome;
  readonly rulesBefore: readonly string[];
  readonly rulesAfter: readonly string[];
  readonly count: number;
  readonly example: Facts;
};

export type Replayed = {
  readonly decisions: number;
  /** Since when they were remembered, Unix milliseconds. */
  readonly sinceMs: number | undefined;
  /** The most frequent first. */
  readonly changes: readonly Changed[];
};

/** Gathers what comes out otherwise. */
export class Differences {
  readonly #changes = new Map<string, { -readonly [K in keyof Changed]: Changed[K] }>();
  #decisions = 0;

  add(facts: Facts, before: Decision, after: Decision): void {
    this.#decisions++;
    if (isSame(before, after)) return;
    const [subject, tool] = [subjectOf(facts), facts.tool.name];
    const [rulesBefore, rulesAfter] = [before.matchedRules, after.matchedRules];
    const key = JSON.stringify([subject, tool, before.outcome, after.outcome, rulesBefore, rulesAfter]);
    const known = this.#changes.get(key);
    if (known !== undefined) known.count++;
    else if (this.#changes.size < MAX_CHANGES) {
      const about = { subject, tool, before: before.outcome, after: after.outcome, rulesBefore, rulesAfter };
      this.#changes.set(key, { ...about, count: 1, example: facts });
    }
  }

  report(sinceMs: number | undefined): Replayed {
    const changes = [...this.#changes.values()].toSorted((a, b) => b.count - a.count).map((change) => ({ ...change }));
    return { decisions: this.#decisions, sinceMs, changes };
  }
}

/** Kinds of change that are told apart; those beyond are not listed. */
const MAX_CHANGES = 1000;

/** The same outcome under other obligations is a change too. */
function isSame(a: Decision, b: Decision): boolean {
  return a.outcome === b.outcome && JSON.stringify(a.obligations) === JSON.stringify(b.obligations);
}

export async function replay(
  all: readonly Facts[],
  before: Policy,
  after: Policy,
  sinceMs: number | undefined,
): Promise<Replayed> {
  const differences = new Differences();
  for (const facts of all) {
    differences.add(facts, before.decide(facts), after.decide(facts));
    await breathe();
  }
  return differences.report(sinceMs);
}

/** The last calls that were decided here, for candidates to be tried on. In memory only. */
export class Recent {
  readonly #kept: Facts[] = [];
  readonly #most: number;
  readonly #sinceMs: number;
  #next = 0;

  constructor(sinceMs: number, most = 10_000) {
    this.#sinceMs = sinceMs;
    this.#most = most;
  }

  note(facts: Facts): void {
    this.#kept[this.#next] = facts;
    this.#next = (this.#next + 1) % this.#most;
  }

  /** The oldest first. */
  ofTenant(tenant: string): { readonly facts: readonly Facts[]; readonly sinceMs: number } {
    const ordered = [...this.#kept.slice(this.#next), ...this.#kept.slice(0, this.#next)];
    return { facts: ordered.filter((facts) => facts.tenant === tenant), sinceMs: this.#sinceMs };
  }
}

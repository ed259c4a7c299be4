import { type Dimension, type Scope, type Spender, scopeText, subjectsOf, valuesOf } from "./scope.ts";
import { type Window, windowText } from "./window.ts";

/** The budgets of one tenant as its active revision has them, and which of them cover a spender. */

/** One budget as an operator wrote it. */
export type Rule = {
  /** As ruleId says. */
  readonly id: string;
  readonly name: string;
  readonly scope: Scope;
  readonly unit: string;
  readonly window: Window;
  /** Of a rolling window: how much the bucket holds. */
  readonly limit: bigint;
  /** Percent of the limit; crossing one is a signal. */
  readonly alerts: readonly number[];
};

/** One budget of one subject, as `demo-day usd_micros day@UTC agent:a1`: what figures are kept for. */
export type InScope = { readonly key: string; readonly rule: Rule; readonly subject: string };

/**
 * Name, unit, window and scope of a budget. Who changes one of them has made another budget, which starts unused; its
 * limit may change. No part has a space but the scope, which comes last.
 */
export function ruleId({ name, unit, window, scope }: Pick<Rule, "name" | "unit" | "window" | "scope">): string {
  return `${name} ${unit} ${windowText(window)} ${scopeText(scope)}`;
}

export function accountKey(rule: Rule, subject: string): string {
  return `${rule.id} = ${subject}`;
}

/** Name, unit, window, scope and subject of a key, as texts. */
export function partsOf(key: string): { name: string; unit: string; window: string; scope: string; subject: string } {
  const [id = "", subject] = key.split(" = ");
  const [name, unit, window, ...scope] = id.split(" ");
  if (name === undefined || unit === undefined || window === undefined || subject === undefined || scope.length === 0) {
    throw new Error(`no budget's key: ${key}`);
  }
  return { name, unit, window, scope: scope.join(" "), subject };
}

/** Rules whose scopes name the same dimensions, and pin the same of them to a name. */
type Shape = {
  readonly dimensions: readonly Dimension[];
  /** By the pinned names. */
  readonly rules: Map<string, Rule[]>;
};

const MAX_REMEMBERED = 4_096;

/** Found by the spender's names: what a look-up costs does not grow with the number of rules. */
export class Rules {
  readonly revision: string;
  readonly tenant: string;
  readonly byName: ReadonlyMap<string, Rule>;
  readonly byId: ReadonlyMap<string, Rule>;
  readonly units: ReadonlySet<string>;
  readonly #shapes = new Map<string, Shape>();
  /** Only to save time: the same spender has the same budgets for as long as these rules stand. */
  readonly #remembered = new Map<string, readonly InScope[]>();

  constructor(of: { revision: string; tenant: string; units: readonly string[]; rules: readonly Rule[] }) {
    this.revision = of.revision;
    this.tenant = of.tenant;
    this.units = new Set(of.units);
    this.byName = new Map(Array.from(of.rules, (rule) => [rule.name, rule]));
    this.byId = new Map(Array.from(of.rules, (rule) => [rule.id, rule]));
    for (const rule of this.byName.values()) this.#index(rule);
  }

  /** Every budget that covers one of these spenders, each once; the order is the file's within a scope. */
  inScope(spenders: readonly Spender[]): readonly InScope[] {
    const [only] = spenders;
    if (only === undefined) return [];
    if (spenders.length === 1) return this.#ofOne(only);
    const found = new Map<string, InScope>();
    for (const spender of spenders) for (const one of this.#ofOne(spender)) found.set(one.key, one);
    return [...found.values()];
  }

  #ofOne(spender: Spender): readonly InScope[] {
    const { agent, user, session, tool, groups } = spender;
    const key = `${agent} ${user} ${session} ${tool} ${groups.length === 0 ? "" : groups.join(" ")}`;
    const known = this.#remembered.get(key);
    if (known !== undefined) return known;
    const found: InScope[] = [];
    for (const shape of this.#shapes.values()) {
      for (const names of namesOf(shape.dimensions, spender)) {
        for (const rule of shape.rules.get(names) ?? []) {
          for (const subject of subjectsOf(rule.scope, spender, this.tenant)) {
            found.push({ key: accountKey(rule, subject), rule, subject });
          }
        }
      }
    }
    if (this.#remembered.size >= MAX_REMEMBERED) this.#remembered.clear();
    this.#remembered.set(key, found);
    return found;
  }

  #index(rule: Rule): void {
    const shapeKey = rule.scope.map(({ dimension, name }) => `${dimension}${name === undefined ? "*" : ""}`).join(" ");
    const pinned = rule.scope.filter(({ name }) => name !== undefined);
    const shape = this.#shapes.get(shapeKey) ?? { dimensions: pinned.map((p) => p.dimension), rules: new Map() };
    this.#shapes.set(shapeKey, shape);
    const names = pinned.map(({ name }) => name).join(" ");
    const same = shape.rules.get(names);
    if (same === undefined) shape.rules.set(names, [rule]);
    else same.push(rule);
  }
}

function namesOf(dimensions: readonly Dimension[], spender: Spender): readonly string[] {
  let names: readonly string[] = [""];
  for (const dimension of dimensions) {
    const values = valuesOf(dimension, spender);
    names = names.flatMap((before) => values.map((value) => (before === "" ? value : `${before} ${value}`)));
  }
  return names;
}

export function noRules(): Rules {
  return new Rules({ revision: "", tenant: "", units: [], rules: [] });
}

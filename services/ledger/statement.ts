import type { Amount } from "./amounts.ts";
import { valueIn } from "./amounts.ts";
import type { Spender } from "./scope.ts";

/** What was spent, by day, agent, user and tool: the lines that statements and rankings are added up from. */

export type Line = {
  readonly agent: string;
  readonly user: string;
  readonly tool: string;
  /** Holds that ended with a spend. */
  commits: number;
  readonly units: Map<string, { estimated: bigint; actual: bigint }>;
};

/** By day since 1970, UTC, then by spender. */
export type Days = Map<number, Map<string, Line>>;

const DAY_MS = 86_400_000;
/** The journal keeps what is older. */
export const KEEP_DAYS = 400;
/** Of all days together. Once there are more the oldest day goes. */
export const KEEP_LINES = 50_000;

/** Both by unit: what was held for it and what it was. */
export function addLine(
  days: Days,
  { agent, user, tool }: Spender,
  of: { readonly estimated: readonly Amount[]; readonly actual: readonly Amount[]; readonly atMs: number },
): void {
  const day = Math.floor(of.atMs / DAY_MS);
  const lines = days.get(day) ?? openDay(days, day);
  const key = `${agent} ${user} ${tool}`;
  let line = lines.get(key);
  if (line === undefined) {
    line = { agent, user, tool, commits: 0, units: new Map() };
    lines.set(key, line);
  }
  line.commits += 1;
  for (const { unit, value } of of.actual) add(line, unit, valueIn(of.estimated, unit), value);
  for (const { unit, value } of of.estimated) {
    if (!of.actual.some((amount) => amount.unit === unit)) add(line, unit, value, 0n);
  }
}

function add({ units }: Line, unit: string, estimated: bigint, actual: bigint): void {
  const sums = units.get(unit);
  if (sums === undefined) units.set(unit, { estimated, actual });
  else {
    sums.estimated += estimated;
    sums.actual += actual;
  }
}

function openDay(days: Days, day: number): Map<string, Line> {
  let lines = 0;
  for (const of of days.values()) lines += of.size;
  const oldest = Math.min(...days.keys());
  if (days.size >= KEEP_DAYS || (days.size > 0 && lines >= KEEP_LINES)) days.delete(oldest);
  const opened = new Map<string, Line>();
  days.set(day, opened);
  return opened;
}

export const BY = ["day", "agent", "user", "tool"] as const;
export type By = (typeof BY)[number];

export type StatementLine = {
  /** Values of what it is grouped by, in the order asked for. */
  readonly of: readonly string[];
  readonly unit: string;
  readonly commits: number;
  readonly estimated: bigint;
  readonly actual: bigint;
};

/** Added up by these, from one day to another, both included; days as `2026-11-24`. */
export function statementOf(days: Days, by: readonly By[], from: string, to: string): StatementLine[] {
  const sums = new Map<string, StatementLine>();
  for (const [day, lines] of days) {
    const date = dateOf(day);
    if (date < from || date > to) continue;
    for (const line of lines.values()) {
      const of = by.map((what) => (what === "day" ? date : line[what]));
      for (const [unit, { estimated, actual }] of line.units) {
        const key = [...of, unit].join(" ");
        const sum = sums.get(key) ?? { of, unit, commits: 0, estimated: 0n, actual: 0n };
        sums.set(key, {
          ...sum,
          commits: sum.commits + line.commits,
          estimated: sum.estimated + estimated,
          actual: sum.actual + actual,
        });
      }
    }
  }
  return [...sums.values()].sort((a, b) => compareText([...a.of, a.unit], [...b.of, b.unit]));
}

export function dateOf(day: number): string {
  return new Date(day * DAY_MS).toISOString().slice(0, 10);
}

function compareText(a: readonly string[], b: readonly string[]): number {
  for (const [i, text] of a.entries()) {
    const other = b[i] ?? "";
    if (text !== other) return text < other ? -1 : 1;
  }
  return 0;
}

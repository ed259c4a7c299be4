import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Budget, Freeze, StatementLine, WatchSignalsResponse } from "../../proto/interlock/v1/ledger_pb.ts";
import { quantity, table } from "./print.ts";

/** How budgets, statements and signals look on a terminal. */

export function budgetsText(budgets: readonly Budget[], frozen: readonly Freeze[]): string {
  if (budgets.length === 0) return ["No budgets are set: nothing is limited.", ...frozenLines(frozen)].join("\n");
  const rows = budgets.map((budget) => [
    budget.name,
    `${budget.scope} ${budget.subject}`,
    budget.window,
    bar(budget),
    quantity(budget.unit, budget.available),
    quantity(budget.unit, budget.held),
    quantity(budget.unit, budget.spent),
    quantity(budget.unit, budget.limit) + (budget.granted > 0n ? `+${quantity(budget.unit, budget.granted)}` : ""),
    budget.unit === "usd_micros" ? "usd" : budget.unit,
    noteOf(budget),
  ]);
  const head = ["BUDGET", "SCOPE", "WINDOW", "USED", "AVAILABLE", "HELD", "SPENT", "LIMIT", "UNIT", "NOTE"];
  return [table([head, ...rows]), ...frozenLines(frozen)].join("\n");
}

function noteOf({ refillTime, emptyTime, raised }: Budget): string {
  const notes: string[] = [];
  if (raised !== undefined) notes.push(`limit set by ${raised.author}`);
  if (refillTime !== undefined) notes.push(`refills ${minute(timestampDate(refillTime))}`);
  if (emptyTime !== undefined) notes.push(`empty ${minute(timestampDate(emptyTime))} at this pace`);
  return notes.join("; ");
}

function frozenLines(frozen: readonly Freeze[]): string[] {
  return frozen.map(({ selector, authorship }) => `FROZEN ${selector}: ${authorship?.author}: ${authorship?.reason}`);
}

function minute(date: Date): string {
  return `${date.toISOString().slice(0, 16)}Z`;
}

/** Ten cells of what is spent (#) and held (+). */
function bar({ limit, granted, spent, held }: Budget): string {
  const cap = limit + granted;
  const cells = (value: bigint): number => (cap > 0n ? Math.min(10, Number((value * 10n + cap - 1n) / cap)) : 10);
  const full = cells(spent);
  const used = Math.max(full, cells(spent + held));
  return `[${"#".repeat(full)}${"+".repeat(used - full)}${".".repeat(10 - used)}]`;
}

export function statementText(by: readonly string[], lines: readonly StatementLine[]): string {
  if (lines.length === 0) return "Nothing was spent.";
  const rows = lines.map(({ of, unit, commits, estimated, actual }) => [
    ...[...of.map(orNobody), commits.toString(), quantity(unit, estimated), quantity(unit, actual)],
    ...[quantity(unit, actual - estimated), unit === "usd_micros" ? "usd" : unit],
  ]);
  const head = [...by.map((what) => what.toUpperCase()), "CALLS", "ESTIMATED", "ACTUAL", "DIFFERENCE", "UNIT"];
  return table([head, ...rows]);
}

function orNobody(text: string): string {
  return text === "" ? "-" : text;
}

/** Comma-separated, with Unix line ends for a terminal. No value has a comma or a quote: they are names, days and whole numbers. */
export function statementCsv(by: readonly string[], lines: readonly StatementLine[]): string {
  const rows = lines.map(({ of, unit, commits, estimated, actual }) => [...of, unit, commits, estimated, actual]);
  return [[...by, "unit", "calls", "estimated", "actual"], ...rows].map((row) => row.join(",")).join("\n");
}

export function signalText(signal: WatchSignalsResponse): string {
  const { kind, budget, scope, subject, unit, time } = signal;
  const at = time === undefined ? "" : timestampDate(time).toISOString();
  const whose = `${budget} of ${scope} ${subject}`;
  const said: Readonly<Record<string, string>> = {
    threshold: `has passed ${signal.percent} %`,
    overrun: `is overrun by ${quantity(unit, signal.over)}`,
    forecast: `will be empty ${signal.emptyTime === undefined ? "soon" : minute(timestampDate(signal.emptyTime))}`,
    anomaly: `spends ${quantity(unit, signal.spent)} where ${quantity(unit, signal.usual)} would be much`,
  };
  return `${at}  ${kind.padEnd(9)}  ${whose} ${said[kind] ?? ""} (${unit}, ${signal.reservationId})`;
}

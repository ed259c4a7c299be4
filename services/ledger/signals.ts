import { type Account, figuresAt } from "./account.ts";
import { type Pace, rateOf, spendAt } from "./pace.ts";
import type { Rule } from "./rules.ts";
import { spanAt, type Window } from "./window.ts";

/** What a spend tells whoever watches a budget. Decided with the spend and recorded with it, so it is told once. */
export type Signal =
  /** The highest threshold that this spend crossed, in percent of limit and grants. */
  | { readonly kind: "threshold"; readonly account: string; readonly percent: number }
  /** More was spent than there was: `over` units beyond. */
  | { readonly kind: "overrun"; readonly account: string; readonly over: bigint }
  /** At the pace of the last slots it will be empty before its window ends (of a total: within a day). */
  | { readonly kind: "forecast"; readonly account: string; readonly emptyAtMs: number }
  /** So much in one slot is unusual for it; `usual` is the most that would not be. */
  | { readonly kind: "anomaly"; readonly account: string; readonly sum: bigint; readonly usual: bigint };

export type SignalKind = Signal["kind"];
export const SIGNAL_KINDS = ["threshold", "overrun", "forecast", "anomaly"] as const satisfies readonly SignalKind[];

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Length of the slots that a budget's pace is kept in; undefined: a rate limit has no pace of its own. */
export function slotMsOf(window: Window): number | undefined {
  if (window.kind === "rolling") return undefined;
  if (window.kind === "total") return HOUR;
  return { hour: MINUTE, day: 15 * MINUTE, week: 2 * HOUR, month: 6 * HOUR }[window.period];
}

/** What one spend is: `held` is what others hold of the account meanwhile. */
export type Spend = { readonly limit: bigint; readonly held: bigint; readonly value: bigint; readonly nowMs: number };

/** What this spend of the account tells. Reads only. */
export function signalsOf(account: Account, rule: Rule, { limit, held, value, nowMs }: Spend): Signal[] {
  const signals: Signal[] = [];
  const { spent, granted } = figuresAt(account, nowMs);
  const cap = limit + granted;
  const after = spent + value;
  if (after > cap) signals.push({ kind: "overrun", account: account.key, over: after - cap });
  const slotMs = slotMsOf(account.window);
  if (slotMs === undefined) return signals;
  const percent = crossed(rule.alerts, spent, after, cap);
  if (percent !== undefined) signals.push({ kind: "threshold", account: account.key, percent });
  const slot = Math.floor(nowMs / slotMs);
  const { pace } = account;
  if (slot > pace.slot || (pace.alarmAt !== undefined && !pace.alarmed && pace.sum + value > pace.alarmAt)) {
    const next = spendAt(pace, slot, value);
    if (next.alarmAt !== undefined && next.sum > next.alarmAt && !next.alarmed) {
      signals.push({ kind: "anomaly", account: account.key, sum: next.sum, usual: next.alarmAt });
    }
    if (slot > pace.slot) {
      const emptyAtMs = emptyAt(next, slotMs, cap - after - held, nowMs);
      const { startMs, endMs } = horizonOf(account.window, nowMs);
      if (emptyAtMs !== undefined && emptyAtMs < endMs && account.forecastAtMs < startMs) {
        signals.push({ kind: "forecast", account: account.key, emptyAtMs });
      }
    }
  }
  return signals;
}

/** Changes the account as its spend and the signals of it say. */
export function notePace(account: Account, value: bigint, signals: readonly Signal[], atMs: number): void {
  const slotMs = slotMsOf(account.window);
  if (slotMs !== undefined) {
    const slot = Math.floor(atMs / slotMs);
    if (slot > account.pace.slot) account.pace = spendAt(account.pace, slot, value);
    else account.pace.sum += value;
  }
  for (const signal of signals) {
    if (signal.account !== account.key) continue;
    if (signal.kind === "forecast") account.forecastAtMs = atMs;
    else if (signal.kind === "anomaly") account.pace.alarmed = true;
  }
}

/** When nothing is left at the present pace; undefined where it is not spent at all. */
export function emptyAt(pace: Pace, slotMs: number, available: bigint, nowMs: number): number | undefined {
  const rate = rateOf(pace, slotMs);
  if (rate === undefined || rate <= 0) return undefined;
  if (available <= 0n) return nowMs;
  const ms = Number(available) / rate;
  return ms > 3_650 * DAY ? undefined : Math.ceil(nowMs + ms);
}

/** By when an empty budget is worth a word, and since when one word is enough. */
function horizonOf(window: Window, nowMs: number): { startMs: number; endMs: number } {
  if (window.kind === "calendar") return spanAt(window.period, window.zone, nowMs);
  return { startMs: nowMs - DAY, endMs: nowMs + DAY };
}

function crossed(alerts: readonly number[], before: bigint, after: bigint, cap: bigint): number | undefined {
  for (let i = alerts.length - 1; i >= 0; i--) {
    const percent = alerts[i] ?? 0;
    const mark = cap * BigInt(percent);
    if (after * 100n >= mark) return before * 100n < mark ? percent : undefined;
  }
  return undefined;
}

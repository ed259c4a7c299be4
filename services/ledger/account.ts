import { newPace, type Pace } from "./pace.ts";
import { partsOf } from "./rules.ts";
import { spanAt, type Window, windowFromText } from "./window.ts";

/**
 * What one subject has held and spent of one budget. available = limit + granted - held - spent, always.
 *
 * A1. An account's own time never goes back. A clock that is set back, or one of several processes that is late, finds
 *     the window that was reached, and gets nothing again that was given once.
 * A2. Holds outlive windows: what is held counts until it ends, and its spend counts in the window in which it ends.
 */
export type Account = {
  readonly key: string;
  readonly ruleId: string;
  readonly unit: string;
  readonly window: Window;
  held: bigint;
  /** Of a token bucket: what has not come back yet, times the window's `everyMs`, so that nothing is ever rounded. */
  used: bigint;
  /** Extra that an operator gave, once. A bucket spends it first; a calendar window ends it. */
  granted: bigint;
  /** Start of the calendar window, or the moment up to which a bucket was refilled. */
  sinceMs: number;
  /** When it was last said that it will be empty too early. */
  forecastAtMs: number;
  pace: Pace;
};

export type Figures = { readonly held: bigint; readonly spent: bigint; readonly granted: bigint };

const UNUSED: Figures = { held: 0n, spent: 0n, granted: 0n };

export function newAccount(key: string): Account {
  const { unit, window } = partsOf(key);
  return {
    ...{ key, ruleId: key.slice(0, key.indexOf(" = ")), unit, window: windowFromText(window) },
    ...{ held: 0n, used: 0n, granted: 0n, sinceMs: 0, forecastAtMs: 0, pace: newPace() },
  };
}

/** As it stands at this time, whatever was last written. */
export function figuresAt(account: Account | undefined, nowMs: number): Figures {
  if (account === undefined) return UNUSED;
  const { window, held, used, granted, sinceMs } = account;
  switch (window.kind) {
    case "total":
      return { held, spent: used, granted };
    case "calendar":
      if (startAt(window, nowMs) > sinceMs) return { held, spent: 0n, granted: 0n };
      return { held, spent: used, granted };
    case "rolling": {
      const every = BigInt(window.everyMs);
      return { held, spent: (refilled(account, window, nowMs) + every - 1n) / every, granted };
    }
  }
}

/** Start of the calendar window that spend at this time counts in; 0 where there is none. */
export function startAt(window: Window, nowMs: number): number {
  return window.kind === "calendar" ? spanAt(window.period, window.zone, nowMs).startMs : 0;
}

/** Changes the account. `startMs` as startAt gave it when this was decided: time zones change between versions. */
export function addSpend(account: Account, value: bigint, startMs: number, atMs: number): void {
  const { window } = account;
  switch (window.kind) {
    case "total":
      account.used += value;
      return;
    case "calendar":
      enter(account, startMs);
      account.used += value;
      return;
    case "rolling": {
      account.used = refilled(account, window, atMs);
      account.sinceMs = Math.max(account.sinceMs, atMs);
      const fromGrant = value < account.granted ? value : account.granted;
      account.granted -= fromGrant;
      account.used += (value - fromGrant) * BigInt(window.everyMs);
    }
  }
}

export function addGrant(account: Account, value: bigint, startMs: number): void {
  if (account.window.kind === "calendar") enter(account, startMs);
  account.granted += value;
}

function enter(account: Account, startMs: number): void {
  if (startMs <= account.sinceMs) return;
  account.sinceMs = startMs;
  account.used = 0n;
  account.granted = 0n;
}

function refilled(account: Account, window: Extract<Window, { kind: "rolling" }>, nowMs: number): bigint {
  if (nowMs <= account.sinceMs) return account.used;
  const left = account.used - window.refill * BigInt(nowMs - account.sinceMs);
  return left < 0n ? 0n : left;
}

/** When `asked` may be had at the earliest, if nothing more is spent; undefined: never by waiting. */
export function refillsAtMs(
  account: Account | undefined,
  of: { readonly window: Window; readonly limit: bigint; readonly asked: bigint },
  nowMs: number,
): number | undefined {
  const { window, limit, asked } = of;
  const held = account?.held ?? 0n;
  switch (window.kind) {
    case "total":
      return undefined;
    case "calendar": {
      if (held + asked > limit) return undefined;
      const { startMs, endMs } = spanAt(window.period, window.zone, Math.max(nowMs, account?.sinceMs ?? 0));
      return Math.max(startMs, endMs);
    }
    case "rolling": {
      const room = limit + (account?.granted ?? 0n) - held - asked;
      if (account === undefined || room < 0n || window.refill === 0n) return undefined;
      const over = account.used - room * BigInt(window.everyMs);
      return account.sinceMs + Number((over + window.refill - 1n) / window.refill);
    }
  }
}

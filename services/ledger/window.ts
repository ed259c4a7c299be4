import { Temporal } from "temporal-polyfill";

/**
 * Over which time a budget counts. As text, in files, events and listings:
 *
 *     total                    over all time
 *     day@Europe/Berlin        from midnight to midnight there; also hour, week (from Monday) and month
 *     rolling:10/60000         a token bucket: it holds `limit`, and 10 units come back every 60,000 ms
 */
export type Window =
  | { readonly kind: "total" }
  | { readonly kind: "calendar"; readonly period: Period; readonly zone: string }
  | { readonly kind: "rolling"; readonly refill: bigint; readonly everyMs: number };

export const PERIODS = ["hour", "day", "week", "month"] as const;
export type Period = (typeof PERIODS)[number];

export function windowText(window: Window): string {
  switch (window.kind) {
    case "total":
      return "total";
    case "calendar":
      return `${window.period}@${window.zone}`;
    case "rolling":
      return `rolling:${window.refill}/${window.everyMs}`;
  }
}

/** @throws Error for what is no window of ours: it is read from the journal only. */
export function windowFromText(text: string): Window {
  if (text === "total") return { kind: "total" };
  const rolling = /^rolling:(\d+)\/(\d+)$/.exec(text);
  if (rolling !== null) return { kind: "rolling", refill: BigInt(rolling[1] ?? 0), everyMs: Number(rolling[2]) };
  const [word, zone, ...rest] = text.split("@");
  const period = PERIODS.find((known) => known === word);
  if (period === undefined || zone === undefined || rest.length > 0) throw new Error(`no window: ${text}`);
  return { kind: "calendar", period, zone };
}

/** Whether the time zone database of this machine knows the name, as `Europe/Berlin` or `UTC`; offsets are none. */
export function isZone(zone: string): boolean {
  if (!/^[A-Za-z][A-Za-z0-9_+/-]{0,63}$/.test(zone)) return false;
  try {
    Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(zone);
    return true;
  } catch {
    return false;
  }
}

/** From `startMs`, which is in it, to `endMs`, which is not. */
export type Span = { readonly startMs: number; readonly endMs: number };

/**
 * The hour, day, week or month that it is in this zone. A day is from the first moment of its date to that of the next,
 * so it has 23 or 25 hours where clocks change, and begins at 01:00 where there is no midnight. An hour is a stretch
 * between two full hours on the wall: the one that is passed twice is two, and one that is cut by a change is shorter.
 */
export function spanAt(period: Period, zone: string, nowMs: number): Span {
  const key = `${period}@${zone}`;
  const known = lastSpans.get(key);
  if (known !== undefined && known.startMs <= nowMs && nowMs < known.endMs) return known;
  const span = spanOf(period, Temporal.Instant.fromEpochMilliseconds(nowMs).toZonedDateTimeISO(zone));
  if (lastSpans.size >= MAX_SPANS) lastSpans.clear();
  lastSpans.set(key, span);
  return span;
}

/** Only to save time: the same question has the same answer without it. */
const lastSpans = new Map<string, Span>();
const MAX_SPANS = 2_000;

function spanOf(period: Period, now: Temporal.ZonedDateTime): Span {
  switch (period) {
    case "hour": {
      const start = hourStart(now);
      return { startMs: start.epochMilliseconds, endMs: hourEnd(start).epochMilliseconds };
    }
    case "day":
      return between(now.startOfDay(), { days: 1 });
    case "week":
      return between(now.subtract({ days: now.dayOfWeek - 1 }).startOfDay(), { weeks: 1 });
    case "month":
      return between(now.with({ day: 1 }).startOfDay(), { months: 1 });
  }
}

function between(start: Temporal.ZonedDateTime, length: Temporal.DurationLike): Span {
  const endMs = start.add(length).startOfDay().epochMilliseconds;
  return { startMs: start.epochMilliseconds, endMs };
}

/** The last full hour on the wall, or the last change of the clocks when that came after it. */
function hourStart(now: Temporal.ZonedDateTime): Temporal.ZonedDateTime {
  const intoHour = { minutes: now.minute, seconds: now.second, milliseconds: now.millisecond };
  const full = now.subtract(intoHour);
  const change = now.add({ milliseconds: 1 }).getTimeZoneTransition("previous");
  return change !== null && change.epochMilliseconds > full.epochMilliseconds ? change : full;
}

function hourEnd(start: Temporal.ZonedDateTime): Temporal.ZonedDateTime {
  const rest = { minutes: 60 - start.minute };
  const full = start.subtract({ seconds: start.second, milliseconds: start.millisecond }).add(rest);
  const change = start.getTimeZoneTransition("next");
  return change !== null && change.epochMilliseconds < full.epochMilliseconds ? change : full;
}

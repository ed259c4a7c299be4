import { ConditionError, problemOf } from "./values.ts";

/** `Mon-Fri 08:00-18:00`: days (optional) and a span of the clock in a time zone. */
export type TimeWindow = {
  /** ISO: Monday is 1, Sunday is 7. */
  readonly days: ReadonlySet<number>;
  /** Minutes of the day; `until` is not part of it. A span that ends before it begins goes over midnight. */
  readonly from: number;
  readonly until: number;
};

const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const ALL_DAYS: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 6, 7]);
const MINUTES_A_DAY = 1440;
const PATTERN = /^(?:([A-Za-z,-]+) )?(\d{2}):(\d{2})-(\d{2}):(\d{2})$/;

const windows = new Map<string, TimeWindow>();
const clocks = new Map<string, Intl.DateTimeFormat>();
const MAX_KNOWN = 1000;

/** @throws ConditionError */
export function parseWindow(text: string): TimeWindow {
  const known = windows.get(text);
  if (known !== undefined) return known;
  const [, days, ...parts] = PATTERN.exec(text) ?? [];
  const [fromHour = 99, fromMinute = 99, untilHour = 99, untilMinute = 99] = parts.map(Number);
  const from = fromHour * 60 + fromMinute;
  const until = untilHour * 60 + untilMinute;
  const sound = fromHour < 24 && fromMinute < 60 && until <= MINUTES_A_DAY && untilMinute < 60 && from !== until;
  if (!sound)
    throw new ConditionError(`'${text.slice(0, 60)}' is no time window; write 'Mon-Fri 08:00-18:00' or '22:00-06:00'`);
  const window = { days: days === undefined ? ALL_DAYS : parseDays(days), from, until };
  if (windows.size >= MAX_KNOWN) windows.clear();
  windows.set(text, window);
  return window;
}

function parseDays(text: string): ReadonlySet<number> {
  const days = new Set<number>();
  for (const part of text.split(",")) {
    const [first = "", last = first, ...more] = part.split("-");
    const [from, until] = [DAYS.indexOf(first), DAYS.indexOf(last)];
    if (from < 0 || until < 0 || more.length > 0) {
      throw new ConditionError(`'${part}' names no days; there are ${DAYS.join(", ")}, and spans such as Mon-Fri`);
    }
    for (let day = from; ; day = (day + 1) % 7) {
      days.add(day + 1);
      if (day === until) break;
    }
  }
  return days;
}

/** Over midnight the hours after it belong to the day before. @throws ConditionError for a zone that is unknown. */
export function isWithin(unixMs: number, { days, from, until }: TimeWindow, zone: string): boolean {
  const { day, minute } = clockOf(unixMs, zone);
  if (from < until) return days.has(day) && minute >= from && minute < until;
  const yesterday = day === 1 ? 7 : day - 1;
  return (days.has(day) && minute >= from) || (days.has(yesterday) && minute < until);
}

function clockOf(unixMs: number, zone: string): { day: number; minute: number } {
  if (zone === "UTC") {
    const time = new Date(unixMs);
    return {
      day: time.getUTCDay() === 0 ? 7 : time.getUTCDay(),
      minute: time.getUTCHours() * 60 + time.getUTCMinutes(),
    };
  }
  const parts = new Map(
    clockFor(zone)
      .formatToParts(unixMs)
      .map(({ type, value }) => [type, value]),
  );
  return {
    day: DAYS.indexOf(parts.get("weekday") ?? "") + 1,
    minute: Number(parts.get("hour")) * 60 + Number(parts.get("minute")),
  };
}

function clockFor(timeZone: string): Intl.DateTimeFormat {
  const known = clocks.get(timeZone);
  if (known !== undefined) return known;
  let clock: Intl.DateTimeFormat;
  try {
    const fields = { weekday: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" } as const;
    clock = new Intl.DateTimeFormat("en-US", { timeZone, ...fields });
  } catch {
    throw new ConditionError(`'${timeZone.slice(0, 60)}' is no time zone such as Europe/Berlin`);
  }
  if (clocks.size >= MAX_KNOWN) clocks.clear();
  clocks.set(timeZone, clock);
  return clock;
}

export function problemOfWindow(text: string): string | undefined {
  return problemOf(() => parseWindow(text));
}

export function problemOfZone(text: string): string | undefined {
  return problemOf(() => clockOf(0, text));
}

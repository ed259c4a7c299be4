import { describe, expect, it } from "vitest";
import { isZone, type Period, spanAt, windowFromText, windowText } from "./window.ts";

/** Each: zone, a moment in UTC, and the window that it is in, in UTC too. */
type Row = readonly [zone: string, now: string, start: string, end: string, hours: number];

const TABLE: Readonly<Record<Period, readonly Row[]>> = {
  hour: [
    ["UTC", "2026-05-05T10:59:59.999Z", "2026-05-05T10:00Z", "2026-05-05T11:00Z", 1],
    ["Asia/Kolkata", "2026-01-01T00:00Z", "2025-12-31T23:30Z", "2026-01-01T00:30Z", 1],
    ["Asia/Kathmandu", "2026-01-01T00:00Z", "2025-12-31T23:15Z", "2026-01-01T00:15Z", 1],
    // Clocks go back at 03:00: the hour from 02:00 is passed twice, and is two.
    ["Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T00:00Z", "2026-10-25T01:00Z", 1],
    ["Europe/Berlin", "2026-10-25T01:30Z", "2026-10-25T01:00Z", "2026-10-25T02:00Z", 1],
    // Clocks go forward at 02:00: there is no hour from 02:00.
    ["Europe/Berlin", "2026-03-29T00:59Z", "2026-03-29T00:00Z", "2026-03-29T01:00Z", 1],
    ["Europe/Berlin", "2026-03-29T01:00Z", "2026-03-29T01:00Z", "2026-03-29T02:00Z", 1],
    // Half an hour of change: back from 02:00 to 01:30, forward from 02:00 to 02:30.
    ["Australia/Lord_Howe", "2026-04-04T14:45Z", "2026-04-04T14:00Z", "2026-04-04T15:00Z", 1],
    ["Australia/Lord_Howe", "2026-04-04T15:10Z", "2026-04-04T15:00Z", "2026-04-04T15:30Z", 0.5],
    ["Australia/Lord_Howe", "2026-10-03T15:40Z", "2026-10-03T15:30Z", "2026-10-03T16:00Z", 0.5],
  ],
  day: [
    ["UTC", "2028-02-29T23:59:59.999Z", "2028-02-29T00:00Z", "2028-03-01T00:00Z", 24],
    ["UTC", "2027-02-28T12:00Z", "2027-02-28T00:00Z", "2027-03-01T00:00Z", 24],
    ["Europe/Berlin", "2026-03-29T10:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z", 23],
    ["Europe/Berlin", "2026-10-25T10:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z", 25],
    ["America/New_York", "2026-03-08T12:00Z", "2026-03-08T05:00Z", "2026-03-09T04:00Z", 23],
    ["America/New_York", "2026-11-01T12:00Z", "2026-11-01T04:00Z", "2026-11-02T05:00Z", 25],
    ["Australia/Lord_Howe", "2026-04-05T00:00Z", "2026-04-04T13:00Z", "2026-04-05T13:30Z", 24.5],
    // No midnight: clocks go from 00:00 to 01:00, so the day begins at 01:00.
    ["Africa/Cairo", "2026-04-24T10:00Z", "2026-04-23T22:00Z", "2026-04-24T21:00Z", 23],
    ["America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04T03:00Z", "2018-11-05T02:00Z", 23],
    // Two midnights: clocks go back from 00:00 to 23:00, and the second 23:00 is of the same day.
    ["America/Sao_Paulo", "2018-02-18T01:30Z", "2018-02-17T02:00Z", "2018-02-18T03:00Z", 25],
    // A date that was left out.
    ["Pacific/Apia", "2011-12-30T09:59Z", "2011-12-29T10:00Z", "2011-12-30T10:00Z", 24],
    ["Pacific/Apia", "2011-12-30T10:00Z", "2011-12-30T10:00Z", "2011-12-31T10:00Z", 24],
    ["Pacific/Kiritimati", "2026-12-31T10:00Z", "2026-12-31T10:00Z", "2027-01-01T10:00Z", 24],
    ["Etc/GMT+12", "2026-01-01T11:59Z", "2025-12-31T12:00Z", "2026-01-01T12:00Z", 24],
  ],
  week: [
    ["UTC", "2026-11-22T23:59Z", "2026-11-16T00:00Z", "2026-11-23T00:00Z", 168],
    ["UTC", "2026-11-23T00:00Z", "2026-11-23T00:00Z", "2026-11-30T00:00Z", 168],
    ["UTC", "2027-01-01T00:00Z", "2026-12-28T00:00Z", "2027-01-04T00:00Z", 168],
    ["Europe/Berlin", "2026-03-29T21:59Z", "2026-03-22T23:00Z", "2026-03-29T22:00Z", 167],
    ["America/New_York", "2026-11-01T12:00Z", "2026-10-26T04:00Z", "2026-11-02T05:00Z", 169],
  ],
  month: [
    ["UTC", "2028-02-29T12:00Z", "2028-02-01T00:00Z", "2028-03-01T00:00Z", 29 * 24],
    ["UTC", "2100-02-28T12:00Z", "2100-02-01T00:00Z", "2100-03-01T00:00Z", 28 * 24],
    ["UTC", "2026-12-31T23:59:59.999Z", "2026-12-01T00:00Z", "2027-01-01T00:00Z", 31 * 24],
    ["Asia/Kolkata", "2028-02-29T19:00Z", "2028-02-29T18:30Z", "2028-03-31T18:30Z", 31 * 24],
    ["Europe/Berlin", "2026-03-15T00:00Z", "2026-02-28T23:00Z", "2026-03-31T22:00Z", 31 * 24 - 1],
    ["Europe/Berlin", "2026-10-31T23:00Z", "2026-10-31T23:00Z", "2026-11-30T23:00Z", 30 * 24],
    ["America/New_York", "2026-11-01T03:59Z", "2026-10-01T04:00Z", "2026-11-01T04:00Z", 31 * 24],
  ],
};

for (const [period, rows] of Object.entries(TABLE)) {
  describe(period, () => {
    it.each(rows)("%s at %s: %s to %s, %d hours", (zone, now, start, end, hours) => {
      const span = spanAt(period as Period, zone, Date.parse(now));
      const text = (ms: number) => new Date(ms).toISOString();
      expect([text(span.startMs), text(span.endMs)]).toEqual([text(Date.parse(start)), text(Date.parse(end))]);
      expect((span.endMs - span.startMs) / 3_600_000).toBe(hours);
    });
  });
}

describe("windows of one period", () => {
  const zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kathmandu"];
  const cases = zones.flatMap((zone) => (["hour", "day", "week", "month"] as const).map((p) => [p, zone] as const));
  it.each(cases)("follow each other without gap or overlap: %s in %s", (period, zone) => {
    let at = Date.UTC(2026, 0, 1);
    const untilMs = period === "hour" ? Date.UTC(2026, 11, 1) : Date.UTC(2029, 0, 1);
    while (at < untilMs) {
      const span = spanAt(period, zone, at);
      if (span.startMs > at || at >= span.endMs) throw new Error(`${new Date(at).toISOString()} is not in its window`);
      const last = spanAt(period, zone, span.endMs - 1);
      expect([last.startMs, last.endMs]).toEqual([span.startMs, span.endMs]);
      expect(spanAt(period, zone, span.endMs).startMs).toBe(span.endMs);
      at = span.endMs;
    }
  });
});

describe("as text", () => {
  it.each(["total", "day@Europe/Berlin", "hour@UTC", "rolling:10/60000"])("%s", (text) => {
    expect(windowText(windowFromText(text))).toBe(text);
  });
  it.each(["", "year@UTC", "day", "day@UTC@UTC", "rolling:x/1", "rolling:1"])("%j is none", (text) => {
    expect(() => windowFromText(text)).toThrow("no window");
  });
  it.each([
    ["Europe/Berlin", true],
    ["UTC", true],
    ["Etc/GMT-3", true],
    ["Mars/Base", false],
    ["+02:00", false],
    ["", false],
    ["Europe/Berlin\n", false],
  ])("zone %j: %s", (zone, expected) => {
    expect(isZone(zone)).toBe(expected);
  });
});

import { describe, expect, test } from "vitest";
import { parseCondition } from "./condition.ts";
import { FUNCTIONS } from "./functions.ts";
import { ConditionError } from "./values.ts";

/** The functions that stand between a text that an agent chose and a decision. "throws" denies. */

function answer(name: string, ...values: never[]): unknown {
  try {
    return FUNCTIONS[name]?.call(...values);
  } catch (error) {
    if (error instanceof ConditionError) return "throws";
    throw error;
  }
}

test.each<[path: string, folder: string, want: boolean | "throws"]>([
  ["/data", "/data", true],
  ["/data/a/b", "/data", true],
  ["/data//./a", "/data/", true],
  ["/data/../etc/passwd", "/data", false],
  ["/data/x/../../etc", "/data", false],
  ["/../data/a", "/data", true],
  ["/database", "/data", false],
  ["/etc", "/", true],
  ["data/a", "/data", "throws"],
  ["", "/data", "throws"],
  ["/data/%2e%2e/etc", "/data", "throws"],
  ["/data\\..\\etc", "/data", "throws"],
  ["/data/a\u0000.csv", "/data", "throws"],
  ["/data/\ud800", "/data", "throws"],
  ["/data/".padEnd(5000, "a/"), "/data", "throws"],
])("inPath(%j, %j) %s", (path, folder, want) => {
  expect(answer("inPath", path as never, folder as never)).toBe(want);
});

test.each<[path: string, pattern: string, want: boolean]>([
  ["/data/a.csv", "/data/*.csv", true],
  ["/data/x/a.csv", "/data/*.csv", false],
  ["/data/x/a.csv", "/data/*/*.csv", true],
  ["/data/a.csv", "/data/**/*.csv", true],
  ["/data/x/y/a.csv", "/data/**/*.csv", true],
  ["/data/x/../../etc/a.csv", "/data/**/*.csv", false],
  ["/data", "/data/**", true],
  ["/data/x/y", "/**", true],
  ["/data/x/y", "/*", false],
])("pathGlob(%j, %j) is %s", (path, pattern, want) => {
  expect(answer("pathGlob", path as never, pattern as never)).toBe(want);
});

test.each<[host: string, pattern: string, want: boolean | "throws"]>([
  ["api.example.com", "*.example.com", true],
  ["API.Example.COM.", "*.example.com", true],
  ["example.com", "*.example.com", false],
  ["example.com", "example.com", true],
  ["a.b.example.com", "*.example.com", true],
  ["example.com.evil.net", "*.example.com", false],
  ["evilexample.com", "*.example.com", false],
  ["https://api.example.com:8443/x?y#z", "*.example.com", true],
  ["https://user:pass@api.example.com/", "*.example.com", true],
  ["https://api.example.com@evil.net/", "*.example.com", false],
  ["https://evil.net\\@api.example.com/", "*.example.com", "throws"],
  ["https://api.example.com%2eevil.net/", "*.example.com", "throws"],
  ["https://127.1/", "127.0.0.1", "throws"],
  ["0x7f000001", "127.0.0.1", "throws"],
  ["2130706433", "127.0.0.1", "throws"],
  ["127.0.0.1", "127.0.0.1", true],
  ["api.example.com\u0000.evil.net", "*.example.com", "throws"],
  ["bücher.example", "*.example", "throws"],
  ["a b.example.com", "*.example.com", "throws"],
  ["", "*.example.com", "throws"],
])("hostGlob(%j, %j) %s", (host, pattern, want) => {
  expect(answer("hostGlob", host as never, pattern as never)).toBe(want);
});

test.each<[address: string, blocks: string[], want: boolean | "throws"]>([
  ["10.1.2.3", ["10.0.0.0/8"], true],
  ["11.1.2.3", ["10.0.0.0/8"], false],
  ["11.1.2.3", ["10.0.0.0/8", "11.0.0.0/8"], true],
  ["fd00::1", ["fd00::/8"], true],
  ["fe80::1", ["fd00::/8"], false],
  ["10.1.2.3", ["fd00::/8"], false],
  ["::ffff:10.1.2.3", ["10.0.0.0/8"], "throws"],
  ["012.1.2.3", ["10.0.0.0/8"], "throws"],
  ["10.1", ["10.0.0.0/8"], "throws"],
  ["fe80::1%eth0", ["fe80::/10"], "throws"],
  ["example.com", ["10.0.0.0/8"], "throws"],
])("cidr(%j, %j) %s", (address, blocks, want) => {
  expect(answer("cidr", address as never, ...(blocks as never[]))).toBe(want);
});

describe("timeWindow", () => {
  // 2026-03-04 is a Wednesday; Berlin is UTC+1 then and UTC+2 in July.
  const at = (text: string) => ({ unix_ms: Date.parse(text) }) as never;
  test.each<[time: string, window: string, zone: string | undefined, want: boolean | "throws"]>([
    ["2026-03-04T08:00:00Z", "08:00-18:00", undefined, true],
    ["2026-03-04T07:59:59Z", "08:00-18:00", undefined, false],
    ["2026-03-04T18:00:00Z", "08:00-18:00", undefined, false],
    ["2026-03-04T23:30:00Z", "22:00-06:00", undefined, true],
    ["2026-03-04T05:59:00Z", "22:00-06:00", undefined, true],
    ["2026-03-04T06:00:00Z", "22:00-06:00", undefined, false],
    ["2026-03-04T10:00:00Z", "Mon-Fri 08:00-18:00", undefined, true],
    ["2026-03-07T10:00:00Z", "Mon-Fri 08:00-18:00", undefined, false],
    ["2026-03-07T10:00:00Z", "Sat,Sun 00:00-24:00", undefined, true],
    ["2026-03-08T10:00:00Z", "Fri-Mon 08:00-18:00", undefined, true],
    ["2026-03-07T02:00:00Z", "Fri 22:00-06:00", undefined, true],
    ["2026-03-06T02:00:00Z", "Fri 22:00-06:00", undefined, false],
    ["2026-03-04T07:30:00Z", "08:00-18:00", "Europe/Berlin", true],
    ["2026-07-01T06:30:00Z", "08:00-18:00", "Europe/Berlin", true],
    ["2026-07-01T05:30:00Z", "08:00-18:00", "Europe/Berlin", false],
    ["2026-03-04T10:00:00Z", "always", undefined, "throws"],
    ["2026-03-04T10:00:00Z", "08:00-18:00", "Mars/Olympus", "throws"],
  ])("at %s, %s in %s: %s", (time, window, zone, want) => {
    const zones = zone === undefined ? [] : [zone as never];
    expect(answer("timeWindow", at(time), window as never, ...zones)).toBe(want);
  });
});

describe("a pattern that is written out is checked when the policy is loaded", () => {
  test.each<[when: string, message: RegExp]>([
    ["inPath(r.args.path, 'data')", /^Argument 2 of inPath\(\): 'data' is no absolute path\.$/],
    ["hostGlob(r.args.host, '*.com')", /a whole top-level domain is too wide/],
    ["hostGlob(r.args.host, '*')", /write a host in lower case, or \*\.example\.com/],
    ["hostGlob(r.args.host, 'Example.com')", /write a host in lower case/],
    ["cidr(r.args.ip, '10.0.0.0/33')", /is no block of addresses such as 10\.0\.0\.0\/8/],
    ["cidr(r.args.ip, '10.0.0.0/8', 'x')", /^Argument 3 of cidr\(\)/],
    ["timeWindow(r.time, '8-18')", /is no time window/],
    ["timeWindow(r.time, 'Mom 08:00-18:00')", /'Mom' names no days/],
    ["timeWindow(r.time, '08:00-18:00', 'Berlin')", /is no time zone such as Europe\/Berlin/],
    ["count(r.args.list)", /^the condition is number, not true or false/],
    ["sum(r.args.list) > 1", /sum\(\) has 1 arguments; write it as sum\(/],
    ["r.spent.euros > 1", /^r\.spent\.euros is no fact; there are r\.spent\.usd_micros/],
  ])("%s", (when, message) => {
    const parsed = parseCondition(when);
    expect(parsed.kind === "refused" ? parsed.message : "accepted").toMatch(message);
  });
});

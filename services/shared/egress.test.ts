import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decideEgress,
  type EgressRequest,
  type EgressRule,
  formatEgressRule,
  intersectEgress,
  parseEgressRule,
  parseEgressRules,
} from "./egress.ts";

const rules: [text: string, rule: EgressRule][] = [
  ["example.com:443", { host: "example.com", port: 443, methods: undefined, path: undefined }],
  ["*.example.com:8443", { host: "*.example.com", port: 8443, methods: undefined, path: undefined }],
  ["GET,HEAD example.com:80", { host: "example.com", port: 80, methods: ["GET", "HEAD"], path: undefined }],
  ["POST a.example.com:443/v1/orders", { host: "a.example.com", port: 443, methods: ["POST"], path: "/v1/orders" }],
  ["example.com:443/v1/*", { host: "example.com", port: 443, methods: undefined, path: "/v1/*" }],
  ["example.com:443/*", { host: "example.com", port: 443, methods: undefined, path: "/*" }],
  ["files.internal:8080", { host: "files.internal", port: 8080, methods: undefined, path: undefined }],
  ["example.com:443/a%20b", { host: "example.com", port: 443, methods: undefined, path: "/a%20b" }],
];
describe("a rule", () => {
  it.each(rules)("%j is read, and written as it was", (text, rule) => {
    expect(parseEgressRule(text)).toEqual({ kind: "rule", rule });
    expect(formatEgressRule(rule)).toBe(text);
  });

  const refused: [text: string, why: RegExp][] = [
    ["", /its host is missing/],
    ["example.com", /names no port: write example\.com:443/],
    ["example.com:", /its port is none/],
    ["example.com:0", /its port is none/],
    ["example.com:65536", /its port is none/],
    ["example.com:0443", /its port is none/],
    ["example.com:*", /its port is none/],
    ["example.com:443:443", /its port is none/],
    ["GET example.com:443 /v1", /write it as `\[METHOD/],
    ["https://example.com", /its port is none|its host|write it/],
    ["EXAMPLE.com:443", /write it as "example\.com:443"/],
    ["POST,GET example.com:443", /write it as "GET,POST example\.com:443"/],
    ["GET,GET example.com:443", /write it as "GET example\.com:443"/],
    ["get example.com:443", /"get" is no method/],
    ["CONNECT example.com:443", /"CONNECT" is no method/],
    [" example.com:443", /"" is no method/],
    ["GET  example.com:443", /write it as|its host/],
    ["*:443", /stands only for whole labels/],
    ["a.*.com:443", /stands only for whole labels/],
    ["a*.example.com:443", /stands only for whole labels/],
    ["*.*.example.com:443", /stands only for whole labels/],
    ["*.com:443", /\*\.com is too wide/],
    ["*.co.uk:443", /too wide/],
    ["*.github.io:443", /too wide/],
    ["*.s3.amazonaws.com:443", /too wide/],
    ["*.local:443", /too wide/],
    ["10.0.0.1:443", /is an address/],
    ["[::1]:443", /its host|write it/],
    ["2130706433:80", /disguise/],
    ["bücher.example:443", /xn--bcher-kva\.example/],
    ["example.com\0.evil.com:443", /control character/],
    ["example.com:443/v1/../admin", /not plain/],
    ["example.com:443/v1//admin", /not plain/],
    ["example.com:443/v1/%2e%2e/admin", /not plain/],
    ["example.com:443/v1%2fadmin", /not plain/],
    ["example.com:443/a\\b", /not plain/],
    ["example.com:443/%zz", /not plain/],
    ["example.com:443/v1?x=1", /query or fragment/],
    ["example.com:443/*/x", /only at the end/],
    ["example.com:443/v1*", /only at the end/],
  ];
  it.each(refused)("%j is refused, and says how to write it", (text, why) => {
    expect(parseEgressRule(text)).toEqual({ kind: "refused", why: expect.stringMatching(why) });
    expect(() => parseEgressRules(["example.com:443", text])).toThrow(why);
  });
});

const LIST = [
  "open.example.com:443",
  "*.wild.example.com:443",
  "GET,HEAD api.example.com:443",
  "POST api.example.com:443/v1/orders",
  "DELETE api.example.com:443/v1/*",
  "plain.example.com:80/pub/*",
];
const connect = (host: string, port = 443): EgressRequest => ({ kind: "connect", host, port });
const http = (method: string, host: string, target: string, port = 443): EgressRequest => {
  return { kind: "http", method, host, port, target };
};

describe("the decision on", () => {
  const allowed: [request: EgressRequest, rule: string, inspect: boolean][] = [
    [connect("open.example.com"), LIST[0] ?? "", false],
    [connect("OPEN.example.com"), LIST[0] ?? "", false],
    [connect("a.wild.example.com"), LIST[1] ?? "", false],
    [connect("a.b.wild.example.com"), LIST[1] ?? "", false],
    [connect("api.example.com"), LIST[2] ?? "", true],
    [http("TRACE", "open.example.com", "/a/../b"), LIST[0] ?? "", true],
    [http("GET", "api.example.com", "/any/../thing"), LIST[2] ?? "", true],
    [http("POST", "api.example.com", "/v1/orders?next=/../x"), LIST[3] ?? "", true],
    [http("DELETE", "api.example.com", "/v1/a%20b"), LIST[4] ?? "", true],
    [http("PUT", "plain.example.com", "/pub/a", 80), LIST[5] ?? "", true],
  ];
  it.each(allowed)("%j: allow", (request, rule, inspect) => {
    const decided = decideEgress(parseEgressRules(LIST), request);
    expect(decided).toMatchObject({ kind: "allow", inspect });
    expect(decided.kind === "allow" && formatEgressRule(decided.rule)).toBe(rule);
  });

  const denied: [request: EgressRequest, reason: string, missing: string | undefined][] = [
    [connect("evil.com"), "NO_RULE", "evil.com:443"],
    [connect("open.example.com", 80), "NO_RULE", "open.example.com:80"],
    [connect("wild.example.com"), "NO_RULE", "wild.example.com:443"],
    [connect("xwild.example.com"), "NO_RULE", "xwild.example.com:443"],
    [connect("open.example.com.evil.com"), "NO_RULE", "open.example.com.evil.com:443"],
    [connect("open.example.com\0.evil.com"), "HOST_INVALID", undefined],
    [connect("open.example.com."), "HOST_INVALID", undefined],
    [connect("93.184.216.34"), "HOST_INVALID", undefined],
    [connect("169.254.169.254", 80), "HOST_INVALID", undefined],
    [connect("[::1]"), "HOST_INVALID", undefined],
    [http("GET", "evil.com", "/x", 80), "NO_RULE", "GET evil.com:80/x"],
    [http("PUT", "api.example.com", "/v1/a"), "METHOD_NOT_ALLOWED", "PUT api.example.com:443/v1/a"],
    [http("TRACE", "api.example.com", "/v1/a"), "METHOD_NOT_ALLOWED", undefined],
    [http("post", "api.example.com", "/v1/orders"), "METHOD_NOT_ALLOWED", undefined],
    [http("POST", "api.example.com", "/v1/orders/7"), "PATH_NOT_ALLOWED", "POST api.example.com:443/v1/orders/7"],
    [http("DELETE", "api.example.com", "/v1"), "PATH_NOT_ALLOWED", "DELETE api.example.com:443/v1"],
    [http("DELETE", "api.example.com", "/v1x/a"), "PATH_NOT_ALLOWED", "DELETE api.example.com:443/v1x/a"],
    [http("DELETE", "api.example.com", "/v1/../v2"), "PATH_AMBIGUOUS", undefined],
    [http("DELETE", "api.example.com", "/v1/%2e%2e/v2"), "PATH_AMBIGUOUS", undefined],
    [http("DELETE", "api.example.com", "/v1/a;/../b"), "PATH_AMBIGUOUS", undefined],
    [http("DELETE", "api.example.com", "/v1//a"), "PATH_AMBIGUOUS", undefined],
    [http("DELETE", "api.example.com", "/v1/%252e%252e/a"), "PATH_AMBIGUOUS", undefined],
    [http("DELETE", "api.example.com", "http://evil.com/v1/"), "PATH_AMBIGUOUS", undefined],
    [http("DELETE", "api.example.com", ""), "PATH_AMBIGUOUS", undefined],
  ];
  it.each(denied)("%j: deny, and which rule is missing", (request, reason, missing) => {
    const decided = decideEgress(parseEgressRules(LIST), request);
    expect(decided).toEqual({ kind: "deny", reason, missing, message: expect.stringMatching(/\.$/) });
    if (missing === undefined) return;
    expect(decided).toMatchObject({ message: expect.stringContaining(missing) });
    expect(decideEgress(parseEgressRules([missing]), request)).toMatchObject({ kind: "allow" });
  });

  it("anything, by no rules at all: deny", () => {
    expect(decideEgress([], connect("example.com"))).toMatchObject({ kind: "deny", reason: "NO_RULE" });
  });
});

describe("two lists together", () => {
  const both: [one: string[], other: string[], together: string[]][] = [
    [[], ["a.com:443"], []],
    [["a.com:443"], ["a.com:443"], ["a.com:443"]],
    [["a.com:443"], ["a.com:80"], []],
    [["*.a.com:443"], ["x.a.com:443"], ["x.a.com:443"]],
    [["*.a.com:443"], ["*.x.a.com:443"], ["*.x.a.com:443"]],
    [["*.a.com:443"], ["a.com:443"], []],
    [["GET,POST a.com:443"], ["POST,PUT a.com:443/v1/*"], ["POST a.com:443/v1/*"]],
    [["GET a.com:443"], ["POST a.com:443"], []],
    [["a.com:443/v1/*"], ["a.com:443/v1/b/*"], ["a.com:443/v1/b/*"]],
    [["a.com:443/v1/*"], ["a.com:443/v1"], []],
    [["a.com:443", "GET a.com:443"], ["a.com:443", "GET a.com:443/x"], ["a.com:443"]],
  ];
  it.each(both)("%j and %j allow %j", (one, other, together) => {
    for (const [a, b] of [
      [one, other],
      [other, one],
    ] as const) {
      expect(intersectEgress(parseEgressRules(a), parseEgressRules(b)).map(formatEgressRule)).toEqual(together);
    }
  });

  const host = fc.constantFrom("a.com", "x.a.com", "y.x.a.com", "b.com");
  const path = fc.constantFrom("/", "/v1/", "/v1/a", "/v1/a/b", "/v2", "/v1/../v2", "/v1");
  const method = fc.constantFrom("GET", "POST", "PUT", "TRACE");
  const rule = fc.record({
    host: fc.oneof(host, fc.constantFrom("*.a.com", "*.x.a.com")),
    port: fc.constantFrom(80, 443),
    methods: fc.constantFrom(undefined, ["GET"], ["GET", "POST"], ["POST", "PUT"]),
    path: fc.constantFrom(undefined, "/*", "/v1/*", "/v1/a", "/v1/a/*", "/v2"),
  });
  const list = fc.array(rule, { maxLength: 4 });
  const request = fc.record({
    kind: fc.constant("http" as const),
    host,
    port: fc.constantFrom(80, 443),
    method,
    target: path,
  });

  it("allow exactly the requests that each allows", () => {
    fc.assert(
      fc.property(list, list, request, (one, other, asked) => {
        const allows = (rules: readonly EgressRule[]): boolean => decideEgress(rules, asked).kind === "allow";
        expect(allows(intersectEgress(one, other))).toBe(allows(one) && allows(other));
      }),
      { numRuns: 5_000 },
    );
  });

  it("are rules again, each of which can be read back", () => {
    fc.assert(
      fc.property(list, list, (one, other) => {
        const together = intersectEgress(one, other);
        expect(parseEgressRules(together.map(formatEgressRule))).toEqual(together);
      }),
    );
  });
});

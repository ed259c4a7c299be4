import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { factsOf, policyOf } from "./fixture.ts";
import { mergeMeasures } from "./measures.ts";
import { obligationsText, parseObligations } from "./obligations.ts";

/** Obligations on a run: parsed, merged by the strictest, and written as they are read. */

test.each<[text: string, want: object | RegExp]>([
  ["egress=api.example.com:443", { egress: ["api.example.com:443"] }],
  [
    "egress=GET api.example.com:443/v1/*|b.example.com:443",
    { egress: ["GET api.example.com:443/v1/*", "b.example.com:443"] },
  ],
  ["egress=none", { egress: [] }],
  ["redact=card|email;notify=security", { redact: ["card", "email"], notify: ["security"] }],
  ["egress=*.com:443", /too wide/],
  ["egress=api.example.com", /names no port/],
  ["redact=a b", /use 1 to 64 letters/],
  ["redact=a;redact=b", /redact is given twice/],
  ["watermark=yes", /watermark is no obligation; there are .*egress, redact, notify/],
])("%s", (text, want) => {
  const parsed = parseObligations(text, "allow");
  if (want instanceof RegExp) expect(parsed.kind === "refused" ? parsed.message : "accepted").toMatch(want);
  else expect(parsed.kind === "ok" ? parsed.obligations : parsed.message).toEqual(want);
});

describe("merging", () => {
  test("what every list of ways out allows, and every field and person", async () => {
    const rule = (imposed: string) => `p, t, *, orders.refund, allow, true, By ${imposed.length}., ${imposed}`;
    const policy = await policyOf(
      rule("egress=*.example.com:443;redact=card;notify=security"),
      rule("egress=GET api.example.com:443|other.example.org:443;redact=email"),
    );
    expect(policy.decide(factsOf()).obligations).toEqual({
      egress: ["GET api.example.com:443"],
      redact: ["card", "email"],
      notify: ["security"],
    });
  });

  test("lists that have nothing in common leave no way out, and a rule without one leaves the others", () => {
    const [a, b] = [{ egress: ["a.example.com:443"] }, { egress: ["b.example.com:443"] }];
    expect(mergeMeasures([a, b])).toEqual({ egress: [] });
    expect(mergeMeasures([a, {}])).toEqual(a);
    expect(mergeMeasures([{}, {}])).toEqual({});
  });

  test("whatever the order, and never wider than one alone", () => {
    const rules = [
      "a.example.com:443",
      "GET a.example.com:443",
      "*.example.com:443",
      "GET,POST a.example.com:443/v1/*",
      "b.example.com:80",
    ];
    const measuresArb = fc.record(
      {
        egress: fc.subarray(rules),
        redact: fc.subarray(["x", "y"], { minLength: 1 }),
        notify: fc.subarray(["p", "q"], { minLength: 1 }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.array(measuresArb, { minLength: 1, maxLength: 4 }), (all) => {
        const merged = mergeMeasures(all);
        expect(mergeMeasures(all.toReversed())).toEqual(merged);
        expect(mergeMeasures([...all, merged])).toEqual(merged);
        for (const one of all) {
          if (one.egress?.length === 0) expect(merged.egress).toEqual([]);
          for (const field of one.redact ?? []) expect(merged.redact).toContain(field);
        }
      }),
    );
  });
});

test("obligations are written as they are read", () => {
  for (const text of [
    "wall_ms=5;egress=none",
    "egress=GET a.example.com:443|b.example.com:80;redact=card|email;notify=security",
  ]) {
    const parsed = parseObligations(text, "allow");
    expect(parsed.kind === "ok" ? obligationsText(parsed.obligations) : parsed.message).toBe(text);
  }
});

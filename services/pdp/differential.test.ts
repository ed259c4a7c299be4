import fc from "fast-check";
import { expect, test } from "vitest";
import { policyOf } from "./fixture.ts";
import { factsArb, linesArb } from "./generated.ts";
import { stockCasbin } from "./stock-fixture.ts";

/**
 * The index, the cache and the checked conditions may only make it faster: whatever is asked of them, stock Casbin gives
 * the same outcome. On a failure fast-check prints the smallest policy and request that it found.
 */

const POLICIES = process.env["FULL"] === "1" ? 2_000 : 200;
const REQUESTS = 110;

test("stock Casbin, with the same model and rules, gives every generated request the same outcome", async () => {
  const seen = { pairs: 0, allow: 0, require_approval: 0, deny: 0 };
  const requestsArb = fc.array(factsArb, { minLength: REQUESTS, maxLength: REQUESTS });
  await fc.assert(
    fc.asyncProperty(linesArb, requestsArb, async (lines, requests) => {
      const policy = await policyOf(...lines);
      const stock = await stockCasbin(lines);
      for (const facts of requests) {
        const want = stock(facts);
        const got = [policy.decide(facts).outcome, policy.decide(facts).outcome]; // the second one is remembered
        expect(got, JSON.stringify(facts)).toEqual([want, want]);
        seen.pairs++;
        seen[want]++;
      }
    }),
    { numRuns: POLICIES },
  );
  console.log(`differential: ${JSON.stringify(seen)}`);
  expect(seen.pairs).toBeGreaterThanOrEqual(20_000);
  for (const outcome of ["allow", "require_approval", "deny"] as const) expect(seen[outcome]).toBeGreaterThan(500);
}, 120_000);

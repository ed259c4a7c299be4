import { newEnforcer, newModelFromString, StringAdapter } from "casbin";
import { describe, expect, test } from "vitest";
import type { Outcome } from "./decide.ts";
import { factsOf, policyOf, withPolicyDir } from "./fixture.ts";
import { MAX_RULES } from "./load.ts";
import { contextOf, openPdp, openTestJournal, operator, pushOf } from "./service-fixture.ts";

/** What others were bitten by in Casbin, each held here. */

const outcomeOf = async (lines: string[], ...facts: Parameters<typeof factsOf>) =>
  (await policyOf(...lines)).decide(factsOf(...facts)).outcome;
const ADMIN = ["g, user:olga, role:policy-admin, demo", "p, demo, role:policy-admin, policy.*, allow, true, Yes."];

/** Two policies that answer every question alike and differently: one allows all orders, the other denies them. */
const edition = (outcome: Outcome, rules: number) => [
  ...ADMIN,
  ...Array.from(
    { length: rules },
    (_, i) => `p, demo, agent:b${i}, orders.lookup, allow, true, Rule ${i} of ${outcome}.`,
  ),
  `p, demo, agent:a, orders.lookup, ${outcome}, true, ${outcome} it is.`,
];

describe("decisions during a reload", () => {
  test("each is wholly by the old revision or wholly by the new one, and none falls in between", async () => {
    await using journal = openTestJournal();
    await withPolicyDir({ "policy.csv": edition("allow", 2_000).join("\n") }, async (dir) => {
      await using pdp = await openPdp(dir, { journal });
      const facts = factsOf({ tenant: "demo", tool: { name: "orders.lookup" } });
      const revisions = new Map<string, Set<string>>();
      let pushing = true;
      const deciding = (async () => {
        let decisions = 0;
        while (pushing) {
          const { revision, outcome } = pdp.decide(facts);
          revisions.set(revision, (revisions.get(revision) ?? new Set()).add(outcome));
          decisions++;
          await new Promise((resolve) => setImmediate(resolve));
        }
        return decisions;
      })();
      for (const outcome of ["deny", "allow", "require_approval"] as const) {
        await pdp.handlers.pushPolicy(
          await pushOf({ "policy.csv": edition(outcome, 2_000).join("\n") }),
          contextOf(operator),
        );
      }
      pushing = false;
      expect(await deciding).toBeGreaterThan(10);
      // "Nothing matches", which denies, is what half a policy would say: no revision answers in two ways.
      expect(revisions.size).toBeGreaterThanOrEqual(2);
      for (const seen of revisions.values()) expect([...seen]).toHaveLength(1);
    });
  });
});

describe("role changes", () => {
  test("are seen by the first decision after the push, both when given and when taken away", async () => {
    const rule = "p, demo, role:clerk, orders.lookup, allow, true, Clerks.";
    const withClerk = (who: string) => [...ADMIN, `g, agent:${who}, role:clerk, demo`, rule].join("\n");
    await withPolicyDir({ "policy.csv": withClerk("b") }, async (dir) => {
      await using pdp = await openPdp(dir);
      const ask = () => pdp.decide(factsOf({ tenant: "demo", tool: { name: "orders.lookup" } })).outcome;
      const seen = [ask()];
      for (const who of ["a", "b", "a"]) {
        await pdp.handlers.pushPolicy(await pushOf({ "policy.csv": withClerk(who) }), contextOf(operator));
        seen.push(ask());
      }
      expect(seen).toEqual(["deny", "allow", "deny", "allow"]);
    });
  });
});

describe("domains", () => {
  test("are equal or not: no pattern, no prefix, no default domain", async () => {
    const lines = ["g, agent:a, role:clerk, t", "p, t, role:clerk, orders.lookup, allow, true, X."];
    for (const tenant of ["t2", "T", "t*", "*", "", "DEFAULT"]) {
      expect(await outcomeOf(lines, { tenant, tool: { name: "orders.lookup" } }), tenant).toBe("deny");
    }
    expect(await outcomeOf(lines, { tenant: "t", tool: { name: "orders.lookup" } })).toBe("allow");
  });

  test("a role of one is not a role in another, though both know it", async () => {
    const lines = [
      "g, agent:a, role:clerk, u",
      "g, agent:b, role:clerk, t",
      "p, t, role:clerk, orders.lookup, allow, true, X.",
    ];
    expect(await outcomeOf(lines, { tenant: "t", tool: { name: "orders.lookup" } })).toBe("deny");
  });
});

describe("pattern roles", () => {
  test("there are none: a role, an agent or a user is its name, whatever characters it has", async () => {
    await expect(policyOf("g, agent:*, role:clerk, t")).rejects.toThrow(/who: Write agent:<name>/);
    await expect(policyOf("g, agent:a, role:cl*, t")).rejects.toThrow(/role: Write role:<name>/);
    const lines = ["g, user:a.b@x.example, role:clerk, t", "p, t, role:clerk, orders.lookup, allow, true, X."];
    const ask = (user: string) => outcomeOf(lines, { agent: "", user, tool: { name: "orders.lookup" } });
    expect(await ask("a.b@x.example")).toBe("allow");
    expect(await ask("a-b@x.example")).toBe("deny");
  });

  test("an agent and a user of one name are two", async () => {
    const lines = [
      "g, user:a, role:clerk, t",
      "p, t, role:clerk, orders.lookup, allow, true, X.",
      "p, t, user:a, orders.refund, allow, true, X.",
    ];
    expect(await outcomeOf(lines, { agent: "a", tool: { name: "orders.lookup" } })).toBe("deny");
    expect(await outcomeOf(lines, { agent: "a" })).toBe("deny");
    expect(await outcomeOf(lines, { agent: "a", user: "a" })).toBe("deny");
    expect(await outcomeOf(lines, { agent: "", user: "a" })).toBe("allow");
  });
});

describe("the first and the second evaluation", () => {
  test("are the same, for facts that the rules read and for facts that they do not", async () => {
    const policy = await policyOf(
      "p, t, *, orders.refund, allow, \"r.args.n > 2 && !contains(r.labels, 'private-data')\", X.",
    );
    const ask = (n: number, labels: "private-data"[] = []) =>
      policy.decide(factsOf({ args: { n, other: Math.random() }, labels })).outcome;
    for (let i = 0; i < 3; i++) {
      expect([ask(3), ask(2), ask(3, ["private-data"]), ask(3)]).toEqual(["allow", "deny", "deny", "allow"]);
    }
  });

  test("a value that is not there is not remembered as one that is null, or as another kind", async () => {
    const policy = await policyOf("p, t, *, orders.refund, allow, \"has(r.args, 'n') && r.args.n == null\", X.");
    const ask = (args: Record<string, null | number>) => policy.decide(factsOf({ args })).outcome;
    expect([ask({}), ask({ n: null }), ask({ n: 0 }), ask({}), ask({ n: null })]).toEqual([
      "deny",
      "allow",
      "deny",
      "deny",
      "allow",
    ]);
  });

  test("a clock that rules read is read each time", async () => {
    const policy = await policyOf(
      "p, t, *, orders.refund, allow, \"timeWindow(r.time, '08:00-18:00')\", X.",
      "p, t, *, orders.refund, deny, r.time.unix_ms < 1000, X.",
    );
    const ask = (timeMs: number) => policy.decide(factsOf({ timeMs })).outcome;
    expect([
      ask(Date.UTC(2026, 2, 4, 9)),
      ask(Date.UTC(2026, 2, 4, 19)),
      ask(Date.UTC(2026, 2, 4, 9)),
      ask(500),
    ]).toEqual(["allow", "deny", "allow", "deny"]);
  });
});

describe("what stock Casbin does and we must not", () => {
  const MODEL =
    "[request_definition]\nr = sub, act, n\n[policy_definition]\np = sub, act, when, eft\n[policy_effect]\ne = some(where (p.eft == allow)) && !some(where (p.eft == deny))\n[matchers]\nm = r.sub == p.sub && r.act == p.act && eval(p.when)";

  test("it lets a call through whose deny rule reads what is not there; here that denies", async () => {
    const stock = await newEnforcer(
      newModelFromString(MODEL),
      new StringAdapter("p, a, x, true, allow\np, a, x, r.n.missing > 2, deny"),
    );
    expect(stock.enforceSync("a", "x", {})).toBe(true);
    expect(
      await outcomeOf([
        "p, t, *, orders.refund, allow, true, X.",
        "p, t, *, orders.refund, deny, r.args.missing > 2, Y.",
      ]),
    ).toBe("deny");
  });

  test("it lets everything through when it is disabled; here nothing can be disabled", async () => {
    const stock = await newEnforcer(newModelFromString(MODEL), new StringAdapter("p, a, x, true, allow"));
    stock.enableEnforce(false);
    expect(stock.enforceSync("nobody", "anything", {})).toBe(true);
    const policy = await policyOf("p, t, *, orders.lookup, deny, true, X.");
    expect(Object.keys(policy).filter((key) => /enable|disable|mode/i.test(key))).toEqual([]);
  });
});

test("a policy of a million rules is refused with the limit, before they are all read", async () => {
  const lines = Array.from({ length: 1_000_000 }, (_, i) => `p, t, agent:a${i}, x.y, allow, true, X.`);
  await expect(policyOf(lines.join("\n"))).rejects.toThrow(
    `policy.csv:${MAX_RULES + 1}: There are more than ${MAX_RULES} rules; use roles, prefixes and groups.`,
  );
}, 60_000);

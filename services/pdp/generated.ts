import fc from "fast-check";
import { OUTCOMES, type Outcome } from "./decide.ts";
import { type Facts, NOTHING_SPENT } from "./facts.ts";
import { factsOf } from "./fixture.ts";

/** Policies and requests for properties: small worlds, so that rules meet requests. */

export const rule = (tenant: string, subject: string, tool: string, outcome: Outcome, when = "true") =>
  `p, ${tenant}, ${subject}, ${tool}, ${outcome}, "${when}", ${outcome} by ${subject} for ${tool}.`;

/** Every function, fact and operator that has an answer for every generated request: stock Casbin does not deny by fault. */
const ATOMS = [
  "true",
  "r.args.n > 2",
  "r.args.n != 3",
  "r.args.n * 2 - 1 >= 5",
  "r.impact == 'high'",
  "r.user == 'olga'",
  "r.loop == 'repeating'",
  "r.depth >= 1",
  "r.spent.usd_micros <= 1000",
  "r.time.hour < 12",
  "r.args.on",
  "contains(r.labels, 'private-data')",
  "contains(r.chain, 'x.y')",
  "oneOf(r.args.who, 'me', 'you')",
  "between(r.args.n, 2, 3)",
  "within(r.args.list, 'a', 'b')",
  "has(r.args, 'maybe')",
  "count(r.args.list) <= 1",
  "countWhere(r.args.pay, 'id', 'card_*') <= 1",
  "sum(r.args.pay, 'amount') > 10",
  "glob(r.args.who, '*o*')",
  "inPath(r.args.path, '/data')",
  "pathGlob(r.args.path, '/data/**/*.csv')",
  "hostGlob(r.args.host, '*.example.com')",
  "cidr(r.args.ip, '10.0.0.0/8', '192.168.1.0/24')",
  "timeWindow(r.time, 'Mon-Fri 08:00-18:00')",
  "timeWindow(r.time, '22:00-06:00', 'Europe/Berlin')",
  "g(r.subject, 'role:r1', r.tenant)",
  "g(r.person, 'role:r2', r.tenant)",
];

const atomArb = fc.constantFrom(...ATOMS);
export const conditionArb: fc.Arbitrary<string> = fc.oneof(
  { weight: 3, arbitrary: atomArb },
  { weight: 1, arbitrary: atomArb.map((atom) => `!(${atom})`) },
  { weight: 1, arbitrary: fc.tuple(atomArb, fc.constantFrom("&&", "||"), atomArb).map((parts) => parts.join(" ")) },
);

const tenantArb = fc.constantFrom("t", "u");
const agentArb = fc.constantFrom("a", "b", "c");
const userArb = fc.constantFrom("olga", "piet@shop.example");
const roleArb = fc.constantFrom("role:r1", "role:r2", "role:r3");
const memberArb = fc.oneof(
  agentArb.map((name) => `agent:${name}`),
  userArb.map((name) => `user:${name}`),
);

export const ruleArb: fc.Arbitrary<string> = fc
  .tuple(
    tenantArb,
    fc.oneof(fc.constant("*"), roleArb, memberArb),
    fc.constantFrom("*", "x.*", "x.y", "x.y.*", "x.y.z", "group:m", "group:p"),
    fc.constantFrom(...OUTCOMES),
    conditionArb,
  )
  .map((columns) => rule(...columns));

/** Every tenant grants every role to somebody, so that a generated rule is never refused. */
const GRANTS = ["t", "u"].flatMap((tenant) =>
  ["r1", "r2", "r3"].map((role) => `g, agent:nobody, role:${role}, ${tenant}`),
);
const linkArb = fc.oneof(
  fc.tuple(memberArb, roleArb, tenantArb).map(([member, role, tenant]) => `g, ${member}, ${role}, ${tenant}`),
  tenantArb.map((tenant) => `g, role:r1, role:r2, ${tenant}`),
  tenantArb.map((tenant) => `g, role:r2, role:r3, ${tenant}`),
  fc.tuple(fc.constantFrom("x.y", "x.y.z"), tenantArb).map(([tool, tenant]) => `g2, ${tool}, group:p, ${tenant}`),
);
export const linesArb: fc.Arbitrary<string[]> = fc
  .tuple(fc.uniqueArray(ruleArb, { maxLength: 12 }), fc.uniqueArray(linkArb, { maxLength: 5 }))
  .map(([rules, links]) => [...GRANTS, ...links, ...rules]);

const argsArb = fc.record(
  {
    n: fc.integer({ min: 1, max: 4 }),
    on: fc.boolean(),
    who: fc.constantFrom("me", "you", "nobody", "toto"),
    list: fc.array(fc.constantFrom("a", "b", "c"), { maxLength: 2 }),
    pay: fc.array(fc.record({ id: fc.constantFrom("card_1", "gift_1"), amount: fc.integer({ min: 0, max: 9 }) }), {
      maxLength: 3,
    }),
    path: fc.constantFrom("/data/a.csv", "/data/x/./b.csv", "/data/../etc/passwd", "/etc", "/data"),
    host: fc.constantFrom("api.example.com", "EXAMPLE.com.", "https://a.example.com:8443/x", "example.com.evil.net"),
    ip: fc.constantFrom("10.1.2.3", "192.168.1.9", "192.168.2.9", "fd00::1"),
    maybe: fc.boolean(),
  },
  { requiredKeys: ["n", "on", "who", "list", "pay", "path", "host", "ip"] },
);

export const factsArb: fc.Arbitrary<Facts> = fc
  .record({
    tenant: tenantArb,
    who: fc.oneof(
      fc.record({ agent: agentArb, user: fc.oneof(fc.constant(""), userArb) }),
      fc.record({ agent: fc.constant(""), user: userArb }),
    ),
    name: fc.constantFrom("x", "x.y", "x.y.z", "w.y"),
    impact: fc.constantFrom("low" as const, "high" as const),
    groups: fc.subarray(["m", "p"]),
    labels: fc.subarray(["private-data" as const]),
    loop: fc.constantFrom("clear" as const, "repeating" as const),
    chain: fc.subarray(["x.y", "code.run"]),
    usd: fc.constantFrom(0, 1000, 5000),
    hour: fc.integer({ min: 0, max: 7 * 24 - 1 }),
    args: argsArb,
  })
  .map(({ tenant, who, labels, args, loop, chain, usd, hour, ...tool }) => {
    const timeMs = Date.UTC(2026, 2, 2, hour, 15);
    return factsOf({
      tenant,
      ...who,
      labels,
      args,
      loop,
      chain,
      timeMs,
      spent: { ...NOTHING_SPENT, usd_micros: usd },
      tool,
    });
  });

import { describe, expect, test } from "vitest";
import { manifestSchema } from "./manifest.ts";

const MANIFEST = {
  ...{ name: "test.tool", version: "1.0.0", description: "A test's.", impact: "low", arguments: { type: "object" } },
  sandbox: { kind: "container", image: "shell", command: ["true"] },
};
const container = (more: object): object => ({ sandbox: { ...MANIFEST.sandbox, ...more } });
const secret = (to: object, ref = "secret://file/x"): object => ({
  secrets: [{ ref, to }],
  egress: ["api.example.com:443"],
});

const BAD: [what: string, change: object, where: string, why: RegExp][] = [
  ["an unknown image", container({ image: "ruby" }), "sandbox.image", /./],
  ["an unknown class", container({ isolation_class: "vm" }), "sandbox.isolation_class", /./],
  ["a NUL in its command", container({ command: ["a\0b"] }), "sandbox.command.0", /NUL/],
  ["neither command nor operation", { sandbox: { kind: "container", image: "shell" } }, "sandbox.command", /either/],
  ["both", container({ operation: "list", lifetime: "session" }), "sandbox.command", /either/],
  [
    "an operation on a call's sandbox",
    { sandbox: { kind: "container", image: "shell", operation: "list" } },
    "sandbox.lifetime",
    /session/,
  ],
  ["a way out that does not parse", { egress: ["api.example.com"] }, "egress.0", /names no port/],
  ["a way out to everybody", { egress: ["*.com:443"] }, "egress.0", /too wide/],
  ["a way out to everybody of a host of sites", { egress: ["*.github.io:443"] }, "egress.0", /too wide/],
  ["a way out by address", { egress: ["169.254.169.254:80"] }, "egress.0", /is an address/],
  ["a secret that is none", secret({ kind: "env", name: "X" }, "secret://file/../x"), "secrets.0.ref", /write secret/],
  [
    "a secret for a rule it lacks",
    secret({ kind: "header", rule: "b.com:443", name: "X" }),
    "secrets.0.to.rule",
    /egress/,
  ],
  [
    "a secret in a header of two lines",
    secret({ kind: "header", rule: "api.example.com:443", name: "X", format: "a\r\n{}" }),
    "secrets.0.to.format",
    /\{\}/,
  ],
  [
    "a secret nowhere in its format",
    secret({ kind: "header", rule: "api.example.com:443", name: "X", format: "a" }),
    "secrets.0.to.format",
    /\{\}/,
  ],
  ["a secret in the sandbox's own variable", secret({ kind: "env", name: "HTTPS_PROXY" }), "secrets.0.to.name", /own/],
  ["a secret that preloads code", secret({ kind: "env", name: "LD_PRELOAD" }), "secrets.0.to.name", /own/],
  [
    "a variable for an isolate, which has none",
    { ...secret({ kind: "env", name: "X" }), sandbox: { kind: "isolate", code: "return 1" } },
    "secrets.0.to.kind",
    /variables/,
  ],
  [
    "a secret for a builtin",
    { ...secret({ kind: "env", name: "X" }), sandbox: { kind: "builtin", name: "noop" } },
    "secrets",
    /builtin/,
  ],
];
describe("a manifest of a container", () => {
  test("is read, and what it leaves out is filled in", () => {
    expect(manifestSchema.parse(MANIFEST)).toMatchObject({
      sandbox: { lifetime: "call", idle_ms: 300_000, ttl_ms: 3_600_000, isolation_class: "runc" },
      limits: { egress_bytes: 16 << 20 },
      ...{ egress: [], secrets: [] },
    });
  });

  const good: [what: string, change: object][] = [
    [
      "an operation of a session",
      { sandbox: { kind: "container", image: "shell", operation: "upload", lifetime: "session" } },
    ],
    [
      "a secret in a header",
      secret({ kind: "header", rule: "api.example.com:443", name: "Authorization", format: "Bearer {}" }),
    ],
    ["a secret in a query", secret({ kind: "query", rule: "api.example.com:443", name: "key" })],
    ["a secret in a variable", secret({ kind: "env", name: "API_KEY" }, "secret://vault/kv/app#key")],
  ];
  test.each(good)("may have %s", (_, change) => {
    expect(manifestSchema.safeParse({ ...MANIFEST, ...change }).success).toBe(true);
  });

  test.each(BAD)("may not have %s", (_, change, where, why) => {
    const parsed = manifestSchema.safeParse({ ...MANIFEST, ...change });
    const issues = parsed.success ? [] : parsed.error.issues;
    expect(issues.map(({ path }) => path.join("."))).toContain(where);
    expect(issues.find(({ path }) => path.join(".") === where)?.message).toMatch(why);
  });
});

import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Ajv2020 } from "ajv/dist/2020.js";
import { type Model, newModelFromString, StringAdapter } from "casbin";
import { describe, expect, test } from "vitest";
import { type Manifest, manifestSchema } from "../shared/manifest.ts";
import { readYaml } from "../shared/yaml-file.ts";
import { parseCsvLine } from "./csv.ts";
import type { Outcome } from "./decide.ts";
import { type FactsChange, factsOf, POLICIES, policyOf } from "./fixture.ts";
import { loadPolicy } from "./load.ts";

/** The files an operator starts from: each is what it says it is. */

const DEMO = [
  ...["code.run", "data.analyse_csv", "math.compute", "orders.lookup", "orders.refund", "orders.report"],
  ...["report.summarise", "shell.run"],
];

function manifestFiles(dir: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".yaml"))
    .map((entry) => join(entry.parentPath, entry.name));
}

function readManifest(file: string): Manifest {
  return readYaml(file, manifestSchema).value;
}

function manifestOf(tool: string): Manifest {
  return readManifest(join(POLICIES, "tools", `${tool}.yaml`));
}

describe("manifests", () => {
  const files = [...manifestFiles(join(POLICIES, "tools")), ...manifestFiles(join(POLICIES, "bench", "tools"))];

  test("the demo's are there", () => {
    expect(files.map((file) => basename(file, ".yaml"))).toEqual(expect.arrayContaining([...DEMO, "noop"]));
  });

  test.each(files.map((file) => [basename(file), file] as const))(
    "%s parses, and its arguments compile",
    (_name, file) => {
      const manifest = readManifest(file);
      expect(manifest.arguments["type"]).toBe("object");
      expect(new Ajv2020({ strict: true }).compile(manifest.arguments)).toBeTypeOf("function");
    },
  );

  test.each(DEMO)("%s takes nothing that it does not name", (tool) => {
    const validate = new Ajv2020({ strict: true }).compile(manifestOf(tool).arguments);
    expect(validate({ ...SAMPLE[tool], surprise: 1 })).toBe(false);
    expect(validate(SAMPLE[tool])).toBe(true);
    expect(validate({})).toBe(false);
  });

  test.each<[tool: string, args: unknown, want: unknown]>([
    [
      "orders.lookup",
      { order_id: "ord-1002" },
      { order_id: "ord-1002", customer: "Grace Murray", paid_usd_micros: 64_000_000 },
    ],
    [
      "orders.refund",
      { order_id: "ord-1002", amount_usd_micros: 64_000_000, reason: "x" },
      { refund_id: "ref-1002-64000000" },
    ],
    [
      "report.summarise",
      { text: "Sales rose. Nobody knows why. Sales of maps rose most!", sentences: 1 },
      { summary: expect.stringMatching(/^Sales/), sentences: 3 },
    ],
    ["report.summarise", { text: "!!!" }, { summary: "", sentences: 0 }],
  ])("the program of %s does what it says", async (tool, args, want) => {
    expect(await runIsolateCode(tool, args)).toMatchObject(want as object);
  });

  test("orders.lookup names the orders there are when asked for another", async () => {
    await expect(runIsolateCode("orders.lookup", { order_id: "ord-9999" })).rejects.toThrow(/no order ord-9999/);
  });
});

/** The body of an async function that sees `input`: what manifest.ts promises an isolate's code. */
async function runIsolateCode(tool: string, input: unknown): Promise<unknown> {
  const { sandbox } = manifestOf(tool);
  if (sandbox.kind !== "isolate" || sandbox.code === undefined) throw new Error(`${tool} carries no code`);
  const AsyncFunction = (async () => {}).constructor as FunctionConstructor;
  return new AsyncFunction("input", sandbox.code)(input);
}

const SAMPLE: Readonly<Record<string, Readonly<Record<string, string | number | readonly string[]>>>> = {
  "data.analyse_csv": { csv: "a,b\nx,1", group_by: "a", measure: "b" },
  "math.compute": { program: "return input", input: 3 },
  "orders.lookup": { order_id: "ord-1001" },
  "code.run": { program: "return input" },
  "orders.report": { order_ids: ["ord-1001"] },
  "orders.refund": { order_id: "ord-1001", amount_usd_micros: 20_000_000, reason: "broken" },
  "report.summarise": { text: "One. Two." },
  "shell.run": { command: "ls" },
};

/** Facts of a demo agent calling a demo tool, as the broker would gather them. */
function demoFacts(agent: string, tool: string, change: FactsChange = {}) {
  const { version, impact, effects, groups } = manifestOf(tool);
  const base = {
    tenant: "demo",
    agent,
    args: SAMPLE[tool] ?? {},
    tool: { name: tool, version, impact, effects, groups },
  };
  return factsOf({ ...base, ...change });
}

describe("the default policy", () => {
  const big = { args: { ...SAMPLE["orders.refund"], amount_usd_micros: 20_000_001 } };
  test.each<[agent: string, tool: string, want: Outcome, change?: FactsChange]>([
    ["analyst", "data.analyse_csv", "allow"],
    ["analyst", "math.compute", "allow"],
    ["analyst", "code.run", "allow"],
    ["support", "code.run", "deny"],
    ["analyst", "orders.report", "allow"],
    ["analyst", "orders.lookup", "allow"],
    ["analyst", "report.summarise", "allow"],
    ["analyst", "orders.refund", "deny"],
    ["analyst", "shell.run", "deny"],
    ["support", "orders.lookup", "allow"],
    ["support", "orders.refund", "allow"],
    ["support", "orders.refund", "require_approval", big],
    ["support", "math.compute", "deny"],
    ["support", "shell.run", "deny"],
    ["demo-agent", "data.analyse_csv", "allow"],
    ["demo-agent", "math.compute", "allow"],
    ["demo-agent", "report.summarise", "allow"],
    ["demo-agent", "orders.lookup", "allow"],
    ["demo-agent", "orders.refund", "allow"],
    ["demo-agent", "orders.refund", "require_approval", big],
    ["demo-agent", "orders.refund", "allow", { labels: ["private-data"] }],
    ["demo-agent", "shell.run", "deny"],
    ["demo-agent", "math.compute", "deny", { loop: "stopped" }],
    ["demo-agent", "math.compute", "allow", { loop: "repeating" }],
    ["demo-agent", "math.compute", "deny", { tenant: "other" }],
    ["operator-agent", "shell.run", "allow"],
    ["operator-agent", "math.compute", "deny"],
    ["stranger", "orders.lookup", "deny"],
  ])("%s calling %s: %s %j", async (agent, tool, want, change) => {
    const policy = await loadPolicy(POLICIES);
    expect(policy.decide(demoFacts(agent, tool, change)).outcome).toBe(want);
  });

  test("a session that has read private data may not send", async () => {
    const policy = await loadPolicy(POLICIES);
    const facts = demoFacts("analyst", "report.summarise", { labels: ["private-data"] });
    const sending = policy.decide({ ...facts, tool: { ...facts.tool, effects: ["sends"] } });
    expect(sending.reasons).toEqual(["A session that has read private data may not send anything out."]);
    expect(policy.decide(facts).outcome).toBe("allow");
  });

  test("a denied shell command says what to do instead", async () => {
    const policy = await loadPolicy(POLICIES);
    expect(policy.decide(demoFacts("demo-agent", "shell.run")).reasons).toEqual([
      expect.stringContaining("use data.analyse_csv"),
    ]);
  });

  test("the benchmark's policy allows its tool to any agent", async () => {
    const policy = await loadPolicy(join(POLICIES, "bench"));
    expect(policy.decide(factsOf({ tenant: "bench", tool: { name: "bench.noop" } })).outcome).toBe("allow");
  });

  test("Casbin's own reader understands every line as ours does", async () => {
    const text = readFileSync(join(POLICIES, "policy.csv"), "utf8");
    const model: Model = newModelFromString(readFileSync(join(POLICIES, "model.conf"), "utf8"));
    await new StringAdapter(text).loadPolicy(model);
    const ours = text.split("\n").flatMap((line) => {
      const parsed = parseCsvLine(line);
      return parsed.kind === "fields" ? [parsed.fields] : [];
    });
    const rules = ours.filter(([type]) => type === "p").map(([, ...columns]) => columns);
    expect(rules.length).toBeGreaterThan(5);
    expect(model.getPolicy("p", "p")).toEqual(rules);
    expect(model.getPolicy("g", "g")).toEqual(ours.filter(([type]) => type === "g").map(([, ...columns]) => columns));
  });
});

describe("the examples of README.md", () => {
  const blocks = [...readFileSync(join(POLICIES, "README.md"), "utf8").matchAll(/^```csv\n([\s\S]*?)^```/gm)];
  const shop = (agent: string, name: string, args: FactsChange["args"] = {}, change: FactsChange = {}) =>
    factsOf({ tenant: "shop", agent, args, ...change, tool: { name, ...change.tool } });
  const night = { timeMs: Date.UTC(2026, 2, 4, 22, 0) };
  const tainted: FactsChange = { labels: ["untrusted-input"], tool: { effects: ["writes"] } };

  test.each<[name: string, facts: ReturnType<typeof factsOf>, want: Outcome, obligations?: object]>([
    ["a clerk looks up", shop("front-desk", "orders.lookup"), "allow"],
    ["a senior is a clerk", shop("back-office", "orders.lookup"), "allow"],
    ["a stranger is not", shop("x", "orders.lookup"), "deny"],
    ["a small refund", shop("front-desk", "orders.refund", { amount_usd_micros: 20_000_000 }), "allow"],
    [
      "a large refund",
      shop("front-desk", "orders.refund", { amount_usd_micros: 20_000_001 }),
      "require_approval",
      { approverGroups: ["leads"], quorum: 2, approvalTtlMs: 14_400_000 },
    ],
    ["a refund without an amount", shop("front-desk", "orders.refund"), "deny"],
    ["pay by day", shop("back-office", "payroll.pay"), "allow", { limits: { wallMs: 2000 } }],
    ["pay by night", shop("back-office", "payroll.pay", {}, night), "deny"],
    ["a clerk does not pay", shop("front-desk", "payroll.pay"), "deny"],
    ["a file below /data", shop("x", "files.read", { path: "/data/a" }), "allow"],
    ["a file elsewhere", shop("x", "files.read", { path: "/etc/a" }), "deny"],
    ["a path that climbs", shop("x", "files.read", { path: "/data/../etc/a" }), "deny"],
    ["a write by a tainted session", shop("x", "files.write", { path: "/data/a" }, tainted), "require_approval"],
    ["mail inside", shop("x", "mail.send", { to: "desk@shop.example" }), "allow"],
    ["mail outside", shop("x", "mail.send", { to: "you@else.example" }), "deny"],
    ["mail with a copy", shop("x", "mail.send", { to: "desk@shop.example", cc: "y" }), "deny"],
  ])("%s: %s", async (_name, facts, want, obligations) => {
    const decision = (await policyOf(...blocks.map(([, text]) => text ?? ""))).decide(facts);
    expect(decision.outcome).toBe(want);
    expect(decision.obligations).toEqual(obligations ?? {});
  });
});

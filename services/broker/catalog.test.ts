import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { type JsonObject, sha256Hex } from "../shared/json.ts";
import { FileProblems } from "../shared/yaml-file.ts";
import { type Catalog, loadCatalog } from "./catalog.ts";

const GOOD = `name: orders.lookup
version: 1.0.0
description: Looks up an order.
impact: low
arguments:
  type: object
  additionalProperties: false
  required: [order]
  properties:
    order: { type: integer, minimum: 1 }
    kind: { enum: [a, b] }
    lines:
      type: array
      items: { type: object, required: [sku], properties: { sku: { type: string, maxLength: 3 }, "a/b~c": { type: string } } }
sandbox: { kind: builtin, name: noop }
`;

function directoryOf(files: Readonly<Record<string, string>>): string {
  const directory = mkdtempSync(join(tmpdir(), "interlock-catalog-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  return directory;
}

function load(files: Readonly<Record<string, string>>): Catalog {
  return loadCatalog(directoryOf(files));
}

/** `file:line field: message` of everything that is wrong. */
function problemsOf(files: Readonly<Record<string, string>>): string[] {
  const directory = directoryOf(files);
  try {
    loadCatalog(directory);
  } catch (error) {
    if (!(error instanceof FileProblems)) throw error;
    return error.problems.map(
      ({ file, line, field, message }) => `${file.slice(directory.length + 1)}:${line} ${field}: ${message}`,
    );
  }
  throw new Error("nothing is wrong with it");
}

describe("a directory of manifests", () => {
  test("becomes tools, found by name and listed by it", () => {
    const catalog = load({
      "z.yaml": GOOD,
      "a.yaml": GOOD.replace("orders.lookup", "orders.zap"),
      "notes.txt": "no tool",
    });
    expect([catalog.size, catalog.list().map(({ manifest }) => manifest.name)]).toEqual([
      2,
      ["orders.lookup", "orders.zap"],
    ]);
    expect(catalog.find("orders.lookup")?.manifest.limits.wall_ms).toBe(10_000);
    for (const name of ["orders", "constructor", "__proto__", ""]) expect(catalog.find(name)).toBeUndefined();
  });

  test("a tool is named by the digest of its canonical manifest, so comments and order do not matter", () => {
    const tool = load({ "a.yaml": GOOD }).find("orders.lookup");
    const other = load({ "a.yaml": `# a note\nimpact: low\n${GOOD.replace("impact: low\n", "")}` }).find(
      "orders.lookup",
    );
    expect(tool?.digest).toBe(sha256Hex(tool?.json ?? ""));
    expect(other?.digest).toBe(tool?.digest);
    expect(load({ "a.yaml": GOOD.replace("1.0.0", "1.0.1") }).find("orders.lookup")?.digest).not.toBe(tool?.digest);
  });

  test("an empty one has no tools", () => expect(load({}).size).toBe(0));

  test("one that is not there is a problem of its own", () => {
    const missing = join(directoryOf({}), "missing");
    expect(() => loadCatalog(missing)).toThrow(`${missing}: The directory of tool manifests cannot be read (ENOENT).`);
  });

  test("the project's own load", () => {
    for (const policies of ["policies", "policies/bench", "policies/airline"]) {
      expect(loadCatalog(new URL(`../../${policies}/tools`, import.meta.url).pathname).size).toBeGreaterThan(0);
    }
  });
});

describe("what is wrong with a manifest is named by file, line and field", () => {
  const isolate = (spec: string) => GOOD.replace("{ kind: builtin, name: noop }", spec);
  test.each<[string, string, RegExp]>([
    ["no YAML", `${GOOD}bad: [`, /^a\.yaml:\d+ : /],
    ["a key twice", `${GOOD}impact: high\n`, /^a\.yaml:16 : Map keys must be unique/],
    ["no name", GOOD.replace("name: orders.lookup\n", ""), /^a\.yaml:1 name: /],
    [
      "a name of another shape",
      GOOD.replace("orders.lookup", "Orders Lookup"),
      /^a\.yaml:1 name: use dotted lower-case words/,
    ],
    ["an unknown impact", GOOD.replace("impact: low", "impact: some"), /^a\.yaml:4 impact: /],
    ["an unknown field", `${GOOD}surprise: 1\n`, /^a\.yaml:1 : .*surprise/],
    ["a limit beyond the widest", `${GOOD}limits:\n  wall_ms: 3600001\n`, /^a\.yaml:17 limits\.wall_ms: /],
    ["a price that is no integer", `${GOOD}price:\n  usd_micros: 0.5\n`, /^a\.yaml:17 price\.usd_micros: /],
    ["an unknown label", `${GOOD}labels: [secret]\n`, /^a\.yaml:16 labels\.0: /],
    [
      "arguments that are no object",
      GOOD.replace("type: object\n  add", "type: string\n  add"),
      /^a\.yaml:6 arguments: Set type: object/,
    ],
    ["arguments of no type", GOOD.replace("  type: object\n", ""), /^a\.yaml:6 arguments: Set type: object/],
    [
      "no JSON Schema",
      GOOD.replace("minimum: 1", "minimum: one"),
      /^a\.yaml:6 arguments: It is no JSON Schema 2020-12/,
    ],
    ["an unknown keyword", GOOD.replace("minimum: 1", "least: 1"), /^a\.yaml:6 arguments: .*least/],
    [
      "an unknown format",
      GOOD.replace("type: integer, minimum: 1", "type: string, format: x"),
      /^a\.yaml:6 arguments: .*format/,
    ],
    [
      "a reference to nowhere",
      GOOD.replace("type: integer, minimum: 1", "$ref: other.json"),
      /^a\.yaml:6 arguments: .*other\.json/,
    ],
    [
      "an asynchronous schema",
      GOOD.replace("  type: object\n", "  type: object\n  $async: true\n"),
      /^a\.yaml:6 arguments: Remove \$async/,
    ],
    [
      "a program twice",
      isolate("{ kind: isolate, code: x, code_argument: y }"),
      /^a\.yaml:15 sandbox: Give the program by exactly one/,
    ],
    ["no program", isolate("{ kind: isolate }"), /^a\.yaml:15 sandbox: Give the program by exactly one/],
    ["an unknown sandbox", isolate("{ kind: bare }"), /^a\.yaml:15 sandbox\.kind: /],
    ["an unknown image", isolate("{ kind: container, image: ruby, command: [a] }"), /^a\.yaml:15 sandbox\.image: /],
  ])("%s", (_, text, want) => {
    const [problem, ...others] = problemsOf({ "a.yaml": text });
    expect(problem).toMatch(want);
    expect(problem).toMatch(/[.:]$/);
    expect(others).toEqual([]);
  });

  test("a name that two files have", () => {
    expect(problemsOf({ "a.yaml": GOOD, "b.yaml": GOOD })).toEqual([
      "b.yaml:1 name: orders.lookup is in another file too; keep one.",
    ]);
  });

  test("every file that is wrong, and every field of it, at once", () => {
    const text = GOOD.replace("low", "some").replace("1.0.0", "one");
    expect(problemsOf({ "a.yaml": text, "b.yaml": "[]", "c.yaml": GOOD }).map((line) => line.split(": ")[0])).toEqual([
      "a.yaml:2 version",
      "a.yaml:4 impact",
      "b.yaml:1 ",
    ]);
  });
});

describe("what is wrong with a price is named likewise", () => {
  test.each([
    ["no unit's name", `${GOOD}price:\n  EUR: 5\n`, /^a\.yaml:17 price\.EUR: /],
    ["calls that are not counted", `${GOOD}price:\n  calls: 0\n`, /^a\.yaml:17 price\.calls: give a whole number/],
    [
      "a price by model without a price list",
      `${GOOD}price:\n  usd_micros:\n    tokens: { model: m, input: p, output: o, output_default: 9 }\n`,
      /^a\.yaml:18 price\.usd_micros\.tokens: There is no price list: write prices\.yaml/,
    ],
  ])("%s", (_name, manifest, expected) => {
    expect(problemsOf({ "a.yaml": manifest })).toEqual([expect.stringMatching(expected)]);
  });
});

describe("arguments that do not fit are named by path", () => {
  test.each<[JsonObject, string, string]>([
    [{}, "order", "is missing"],
    [{ order: 1, other: 2 }, "other", "is not an argument of this tool"],
    [{ order: "1" }, "order", "must be integer"],
    [{ order: 0 }, "order", "must be >= 1"],
    [{ order: 1, kind: "c" }, "kind", "must be equal to one of the allowed values: a, b"],
    [{ order: 1, lines: [{ sku: "abc" }, {}] }, "lines[1].sku", "is missing"],
    [{ order: 1, lines: [{ sku: "abcd" }] }, "lines[0].sku", "must NOT have more than 3 characters"],
    [{ order: 1, lines: [{ sku: "abc", "a/b~c": 1 }] }, "lines[0].a/b~c", "must be string"],
  ])("%j", (args, path, message) => {
    expect(load({ "a.yaml": GOOD }).find("orders.lookup")?.problemOf(args)).toEqual({ path, message });
  });

  test("those that fit are no problem, and are not changed by the check", () => {
    const args = { order: 1, lines: [] };
    const withDefault = GOOD.replace("minimum: 1", "minimum: 1, default: 7");
    expect(load({ "a.yaml": withDefault }).find("orders.lookup")?.problemOf(args)).toBeUndefined();
    expect(args).toEqual({ order: 1, lines: [] });
  });

  test("two tools' schemas of one $id do not meet", () => {
    const named = GOOD.replace("  type: object\n  add", "  $id: same\n  type: object\n  add");
    const catalog = load({
      "a.yaml": named,
      "b.yaml": named.replace("orders.lookup", "orders.other").replace("type: integer, minimum: 1", "type: string"),
    });
    expect(catalog.find("orders.lookup")?.problemOf({ order: 1 })).toBeUndefined();
    expect(catalog.find("orders.other")?.problemOf({ order: "1" })).toBeUndefined();
  });
});

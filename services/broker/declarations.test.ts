import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { type DeclaredTool, declare } from "./declarations.ts";

const search: DeclaredTool = {
  name: "airline.search",
  description: "Finds flights. */ declare const evil: 1; /*",
  needsApproval: false,
  schema: {
    type: "object",
    additionalProperties: false,
    required: ["from", "cabin"],
    properties: {
      from: { type: "string", description: "as three\nletters" },
      cabin: { enum: ["economy", "business"] },
      stops: { type: ["integer", "null"] },
      legs: { type: "array", items: { type: "object", properties: { "not-a-name": { const: 1 } } } },
    },
  },
};
const nested: DeclaredTool = { ...search, name: "airline.search.nearby", schema: {}, needsApproval: true };
const odd: DeclaredTool = { ...search, name: "a-b.c", schema: { anyOf: [{ type: "object" }, { $ref: "#/x" }] } };

it("a tool is where its name says, typed as its schema says", () => {
  expect(declare([search])).toContain(
    '    search: (args: { /** as three letters */ from: string; cabin: "economy" | "business"; stops?: number | null; legs?: Array<{ "not-a-name"?: 1; [key: string]: unknown }> }) => Promise<any>;',
  );
});

it("nothing a manifest says gets out of its comment, and asking people is said", () => {
  const text = declare([search, nested]);
  expect(text).not.toMatch(/^declare const evil/m);
  expect(text).toContain("A person may be asked first.");
});

it("what it declares is TypeScript: right calls pass, wrong ones do not, tools that are not granted are not there", () => {
  const folder = mkdtempSync(join(tmpdir(), "interlock-types-"));
  try {
    writeFileSync(join(folder, "tools.d.ts"), declare([search, nested, odd]));
    writeFileSync(
      join(folder, "program.ts"),
      `async function main() {
        await tools.airline.search({ from: "AMS", cabin: "economy" });
        await tools.airline.search.nearby({ anything: 1 });
        await tools["a-b"].c({});
        // @ts-expect-error one is missing
        await tools.airline.search({ from: "AMS" });
        // @ts-expect-error no such cabin
        await tools.airline.search({ from: "AMS", cabin: "roof" });
        // @ts-expect-error no such tool
        await tools.airline.cancel({});
      }`,
    );
    const said = execFileSync(
      "node_modules/.bin/tsc",
      [
        "--ignoreConfig",
        "--noEmit",
        "--strict",
        "--target",
        "esnext",
        "--types",
        "",
        join(folder, "tools.d.ts"),
        join(folder, "program.ts"),
      ],
      { encoding: "utf8" },
    );
    expect(said).toBe("");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { inlined } from "./inline.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "interlock-inline-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

it("a program and all it imports, types and all, run from one text without files or types", async () => {
  writeFileSync(join(folder, "deep.ts"), "export const deep: number = 20;\n");
  writeFileSync(
    join(folder, "near.ts"),
    'import { deep } from "./deep.ts";\nexport const near = (n: number): number => deep + n;\n',
  );
  const main =
    'import { near } from "./near.ts";\nimport type { Nothing } from "./nowhere.ts";\nconsole.log(near(1) as number);\n';
  writeFileSync(join(folder, "main.ts"), main);
  const args = ["--jitless", "--permission", "--no-node-snapshot", "--input-type=module", "--eval"];
  const { stdout } = await promisify(execFile)(process.execPath, [...args, inlined(join(folder, "main.ts"))], {
    env: {},
  });
  expect(stdout).toBe("21\n");
});

it("the worker's own text has no import of a file left", () => {
  const text = inlined(join(import.meta.dirname, "worker.ts"));
  expect(text).not.toMatch(/^import .* from "(?!data:|node:)/m);
  // One argument of a command line may be 128 KiB.
  expect(Buffer.byteLength(text)).toBeLessThan(128 << 10);
});

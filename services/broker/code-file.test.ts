import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { sha256Hex } from "../shared/json.ts";
import { manifestSchema } from "../shared/manifest.ts";
import { withCode } from "./code-file.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "interlock-code-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function load(sandbox: object) {
  const manifest = manifestSchema.parse({
    ...{ name: "t.x", version: "1.0.0", description: "x", impact: "low", arguments: { type: "object" } },
    sandbox: { kind: "isolate", ...sandbox },
  });
  return withCode(manifest, folder).sandbox;
}

function put(file: string, source: string) {
  writeFileSync(join(folder, file), source);
  return { code_file: file, code_sha256: sha256Hex(source) };
}

it("a program in TypeScript becomes the manifest's own, its lines where they were", () => {
  const source = "type Input = { n: number };\nasync function main(input: Input) { return input.n; }\n";
  const sandbox = load(put("x.ts", source));
  expect(sandbox).toMatchObject({ code: expect.stringContaining("async function main(input       )") });
  expect(sandbox).toMatchObject({ code: expect.stringMatching(/\nreturn main\(input\);$/) });
});

describe("is refused, naming the field and the mend:", () => {
  const good = "const main = (input) => input;";
  const refusals: [what: string, make: () => object, field: string, says: RegExp][] = [
    [
      "a file that has changed",
      () => ({ ...put("x.js", good), code_sha256: "0".repeat(64) }),
      "code_sha256",
      /Review what has changed/,
    ],
    ["a file without a hash", () => ({ code_file: put("x.js", good).code_file }), "code_sha256", /together/],
    ["a hash without a file", () => ({ code: "return 1", code_sha256: "0".repeat(64) }), "code_sha256", /together/],
    ["code and a file", () => ({ ...put("x.js", good), code: "return 1" }), "", /exactly one/],
    ["no program at all", () => ({}), "", /exactly one/],
    ["a file that is not there", () => ({ code_file: "y.js", code_sha256: "0".repeat(64) }), "code_file", /ENOENT/],
    ["a syntax error", () => put("x.js", "const a = 1;\nconst main = ;"), "code_file", /x\.js:2 is no program/],
    ["types that cannot be stripped", () => put("x.ts", "enum A { b }\nfunction main() {}"), "code_file", /no program/],
    ["a file without main", () => put("x.js", "const other = 1;"), "code_file", /defines no function main/],
    ["a file that is too large", () => put("x.js", `${good}//${"x".repeat(300_000)}`), "code_file", /at most 262144/],
    [
      "a link",
      () => {
        const pinned = put("real.js", good);
        symlinkSync(join(folder, "real.js"), join(folder, "link.js"));
        return { ...pinned, code_file: "link.js" };
      },
      "code_file",
      /no regular file/,
    ],
  ];
  it.each(refusals)("%s", (_, make, field, says) => {
    const sandbox = make();
    expect(() => load(sandbox)).toThrow(expect.objectContaining({ field, message: expect.stringMatching(says) }));
  });

  it.each(["../x.js", "/etc/passwd.js", "a/b.js", ".x.js", "x.mjs"])("a file named %s", (code_file) => {
    expect(() => load({ code_file, code_sha256: "0".repeat(64) })).toThrow(/code_file/);
  });
});

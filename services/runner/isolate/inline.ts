import { readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { dirname, resolve } from "node:path";

/**
 * A program and all it imports as one JavaScript module. A worker runs without WebAssembly, with which Node strips
 * types, and without a right to read files; so it is handed its text.
 */
export function inlined(path: string): string {
  const code = stripTypeScriptTypes(readFileSync(path, "utf8"));
  return code.replace(/(?<=^import .* from )"(\..*)"(?=;$)/gm, (_, relative: string) => {
    const imported = inlined(resolve(dirname(path), relative));
    return `"data:text/javascript;base64,${Buffer.from(imported).toString("base64")}"`;
  });
}

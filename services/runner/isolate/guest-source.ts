import { readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";

/** In the order in which they need one another. */
const FILES = ["host", "console", "clock", "timers", "text", "url", "clone", "calls", "fetch", "main"];

/**
 * The standard library as one script, for a place that has no modules. It leaves `$boot` on the global object: the first
 * that readies an isolate takes it away.
 */
export function guestSource(): string {
  const files = FILES.map((name) => {
    const code = stripTypeScriptTypes(readFileSync(join(import.meta.dirname, "guest", `${name}.ts`), "utf8"));
    return code
      .replaceAll(/^import .*;$/gm, "")
      .replaceAll(/^import \{[^}]*\} from ".*";$/gm, "")
      .replaceAll(/^export (?=const |function |class )/gm, "");
  });
  return `(() => {"use strict";\n${files.join("\n")}\nglobalThis.$boot = boot;\n})();`;
}

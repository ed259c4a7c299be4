import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { canonicalJson } from "../../services/shared/json.ts";
import { type Manifest, manifestSchema } from "../../services/shared/manifest.ts";
import { readYaml } from "../../services/shared/yaml-file.ts";
import type { RecordedRun } from "./runs.ts";

/**
 * The airline's policies with tools that answer as they were recorded. A tool's program holds every result recorded
 * for it, by canonical arguments; arguments and everything that policy sees stay the agent's own.
 *
 * A program keeps nothing between calls, so where the same arguments were answered differently (the world had changed
 * in between) it returns the first answer. The replay counts each such call as a mismatch.
 */

/** tool -> canonical arguments -> the first recorded result. */
export type Recordings = ReadonlyMap<string, ReadonlyMap<string, string>>;

export const PREFIX = "airline.";

export function recordingsOf(runs: readonly RecordedRun[]): Recordings {
  const recordings = new Map<string, Map<string, string>>();
  for (const call of runs.flatMap((run) => run.calls)) {
    if (call.result === undefined) continue;
    const name = `${PREFIX}${call.tool}`;
    const results = recordings.get(name) ?? new Map<string, string>();
    recordings.set(name, results);
    const key = canonicalJson(call.args);
    if (!results.has(key)) results.set(key, call.result);
  }
  return recordings;
}

/** Writes a policies directory: rules, budgets and model as they are, manifests with their recorded results. */
export function writePolicies(target: string, recordings: Recordings): void {
  const source = join(import.meta.dirname, "../../policies");
  mkdirSync(join(target, "tools"), { recursive: true });
  copyFileSync(join(source, "model.conf"), join(target, "model.conf"));
  for (const file of ["policy.csv", "budgets.yaml"]) copyFileSync(join(source, "airline", file), join(target, file));
  for (const file of readdirSync(join(source, "airline/tools"))) {
    const { value: manifest } = readYaml(join(source, "airline/tools", file), manifestSchema);
    const recorded = withRecordings(manifest, recordings.get(manifest.name) ?? new Map());
    writeFileSync(join(target, "tools", file), stringify(recorded, { lineWidth: 0 }));
  }
}

function withRecordings(manifest: Manifest, results: ReadonlyMap<string, string>): Manifest {
  const code = programOf(results);
  const parsed = manifestSchema.safeParse({ ...manifest, sandbox: { kind: "isolate", code } });
  if (parsed.success) return parsed.data;
  throw new Error(
    `${manifest.name}: ${results.size} recorded results make a program of ${code.length} characters; replay fewer runs`,
  );
}

/** A member a line, and JavaScript's own sorting and spelling: that is RFC 8785 for plain data. */
function programOf(results: ReadonlyMap<string, string>): string {
  const entries = [...results].map((entry) => `  ${JSON.stringify(entry)},`);
  return `const recorded = new Map([
${entries.join("\n")}
]);
const canonical = (value) => {
  if (Array.isArray(value)) return "[" + value.map(canonical).join() + "]";
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const members = Object.keys(value).sort().map((key) => JSON.stringify(key) + ":" + canonical(value[key]));
  return "{" + members.join() + "}";
};
const result = recorded.get(canonical(input));
if (result === undefined) throw new Error("nothing was recorded for these arguments");
return result;
`;
}

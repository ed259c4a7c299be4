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
 * A program keeps nothing between calls, and the world of one run is not the world of another: where two runs had
 * different answers to the same arguments, the later run uses an edition of the tool of its own
 * (`airline.book_reservation_2`), alike but for its recordings. Within a run a tool has one edition, so that budgets and
 * loop checks see what they would have seen; when one run was given two answers, the first is returned, and the replay
 * counts the other as a mismatch.
 */

export const PREFIX = "airline.";

/** Canonical arguments -> the recorded result. */
type Results = Map<string, string>;

export type Recordings = {
  /** By the tool's name in the policies: its editions, each with its own results. */
  readonly editions: ReadonlyMap<string, readonly ReadonlyMap<string, string>[]>;
  /** The name under which this run calls a recorded tool. */
  readonly toolOf: (run: RecordedRun, tool: string) => string;
};

export function recordingsOf(runs: readonly RecordedRun[]): Recordings {
  const editions = new Map<string, Results[]>();
  const chosen = new Map<RecordedRun, Map<string, string>>();
  for (const run of runs) {
    const names = new Map<string, string>();
    chosen.set(run, names);
    for (const [tool, results] of resultsOf(run)) {
      const name = `${PREFIX}${tool}`;
      const known = editions.get(name) ?? [];
      editions.set(name, known);
      let index = known.findIndex((edition) => agree(edition, results));
      if (index === -1) index = known.push(new Map()) - 1;
      for (const [args, result] of results) known[index]?.set(args, result);
      names.set(tool, editionName(name, index));
    }
  }
  return { editions, toolOf: (run, tool) => chosen.get(run)?.get(tool) ?? `${PREFIX}${tool}` };
}

/** tool -> what this run was answered, first answers first. */
function resultsOf(run: RecordedRun): Map<string, Results> {
  const byTool = new Map<string, Results>();
  for (const call of run.calls) {
    const results = byTool.get(call.tool) ?? new Map<string, string>();
    byTool.set(call.tool, results);
    const args = canonicalJson(call.args);
    if (call.result !== undefined && !results.has(args)) results.set(args, call.result);
  }
  return byTool;
}

function agree(edition: Results, results: Results): boolean {
  return [...results].every(([args, result]) => (edition.get(args) ?? result) === result);
}

function editionName(tool: string, index: number): string {
  return index === 0 ? tool : `${tool}_${index + 1}`;
}

/** Writes a policies directory: rules, budgets and model as they are, manifests with their recorded results. */
export function writePolicies(target: string, recordings: Recordings): void {
  const source = join(import.meta.dirname, "../../policies");
  mkdirSync(join(target, "tools"), { recursive: true });
  copyFileSync(join(source, "model.conf"), join(target, "model.conf"));
  for (const file of ["policy.csv", "budgets.yaml"]) copyFileSync(join(source, "airline", file), join(target, file));
  for (const file of readdirSync(join(source, "airline/tools"))) {
    const { value: manifest } = readYaml(join(source, "airline/tools", file), manifestSchema);
    for (const [index, results] of (recordings.editions.get(manifest.name) ?? [new Map()]).entries()) {
      const name = editionName(manifest.name, index);
      const recorded = withRecordings({ ...manifest, name }, results);
      writeFileSync(join(target, "tools", `${name}.yaml`), stringify(recorded, { lineWidth: 0 }));
    }
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

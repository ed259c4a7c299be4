import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { canonicalJson, sha256Hex } from "../shared/json.ts";
import { type FileProblem, FileProblems } from "../shared/yaml-file.ts";
import { compilePolicy, type Link, MAX_ROLE_DEPTH, type Model, ModelError, parseModel, type Rule } from "./casbin.ts";
import type { Decision } from "./decide.ts";
import type { Facts } from "./facts.ts";
import { type LineRule, parsePolicyLine } from "./lines.ts";

/** One revision of the policy. Never changed once built. */
export type Policy = {
  /** SHA-256 of the model and every rule with its file and line: what `policy.csv:12` means is fixed by it. */
  readonly revision: string;
  /** How many rules: all, or one tenant's. */
  readonly countRules: (tenant?: string) => number;
  readonly decide: (facts: Facts) => Decision;
};

export const MAX_RULES = 200_000;

/** A line that was understood, for checks across lines. */
type Placed<T> = { readonly value: T; readonly file: string; readonly line: number };
type Files = {
  readonly rules: Placed<LineRule & Pick<Rule, "at" | "order">>[];
  readonly roles: Placed<Link>[];
  readonly groups: Placed<Link>[];
  /** Every line that is not blank, as the revision hashes it. */
  readonly content: [file: string, line: number, text: string][];
};
type Report = (file: string, line: number | undefined, field: string, message: string) => void;

/** @throws FileProblems with every problem of the directory. */
export async function loadPolicy(dir: string): Promise<Policy> {
  const problems: FileProblem[] = [];
  const report: Report = (file, line, field, message) => problems.push({ file, line, field, message });
  const files: Files = { rules: [], roles: [], groups: [], content: [] };
  const modelFile = join(dir, "model.conf");
  const modelText = await readText(modelFile, report);
  const model = modelText === undefined ? undefined : readModel(modelFile, modelText, report);
  for (const file of await csvFiles(dir, report)) {
    const text = await readText(file, report);
    if (text !== undefined) readRules(file, text, files, report);
  }
  checkAcross(files, report);
  if (model === undefined || problems.length > 0) throw new FileProblems(problems);
  const values = <T>(placed: readonly Placed<T>[]): T[] => placed.map(({ value }) => value);
  const compiled = await compilePolicy(model, values(files.rules), values(files.roles), values(files.groups));
  const tenants = new Map<string, number>();
  for (const { value } of files.rules) tenants.set(value.tenant, (tenants.get(value.tenant) ?? 0) + 1);
  return {
    revision: sha256Hex(canonicalJson([model.text, files.content])),
    countRules: (tenant) => (tenant === undefined ? files.rules.length : (tenants.get(tenant) ?? 0)),
    decide: compiled.decide,
  };
}

/** What `policy check` asks. @throws FileProblems, as loadPolicy. */
export async function checkPolicy(dir: string): Promise<{ readonly revision: string; readonly rules: number }> {
  const policy = await loadPolicy(dir);
  return { revision: policy.revision, rules: policy.countRules() };
}

async function csvFiles(dir: string, report: Report): Promise<string[]> {
  try {
    const files = (await readdir(dir)).filter((name) => name.endsWith(".csv")).toSorted();
    if (files.length === 0) report(dir, undefined, "", "There is no *.csv file with rules here; write policy.csv.");
    return files.map((name) => join(dir, name));
  } catch (error) {
    report(dir, undefined, "", `The directory cannot be read (${codeOf(error)}); give the one that holds model.conf.`);
    return [];
  }
}

async function readText(file: string, report: Report): Promise<string | undefined> {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(file));
  } catch (error) {
    report(file, undefined, "", `The file cannot be read as UTF-8 text (${codeOf(error)}).`);
    return undefined;
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "unreadable";
}

function readModel(file: string, text: string, report: Report): Model | undefined {
  try {
    return parseModel(text);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    const at = text.split("\n").findIndex((line) => new RegExp(`^\\s*${error.key}\\s*=`).test(line));
    report(file, at < 0 || error.key === "" ? undefined : at + 1, error.key, error.message);
    return undefined;
  }
}

function readRules(file: string, text: string, files: Files, report: Report): void {
  for (const [i, raw] of text.split(/\r?\n/).entries()) {
    const line = i + 1;
    const at = `${basename(file)}:${line}`;
    const parsed = parsePolicyLine(raw);
    switch (parsed.kind) {
      case "blank":
        continue;
      case "broken":
        for (const { field, message } of parsed.problems) report(file, line, field, message);
        continue;
      case "rule":
        files.rules.push({ value: { ...parsed.rule, at, order: files.rules.length }, file, line });
        break;
      case "role":
        files.roles.push({ value: parsed.link, file, line });
        break;
      case "group":
        files.groups.push({ value: parsed.link, file, line });
        break;
    }
    files.content.push([basename(file), line, raw.trim()]);
  }
}

/** What one line alone cannot show. A role nobody has is a slip: in a deny rule it would be no rule at all. */
function checkAcross(files: Files, report: Report): void {
  if (files.rules.length > MAX_RULES) {
    const { file, line } = files.rules[MAX_RULES] as Placed<LineRule>;
    report(file, line, "", `There are more than ${MAX_RULES} rules; use roles, prefixes and groups.`);
  }
  const granted = new Set(files.roles.map(({ value }) => `${value.tenant} ${value.to}`));
  const grantMissing = (tenant: string, role: string) =>
    `Nobody in tenant ${tenant} has ${role}: mend the name, or grant it with a line g, agent:<name>, ${role}, ${tenant}.`;
  const seen = new Map<string, string>();
  for (const { value: rule, file, line } of files.rules) {
    if (rule.subject.startsWith("role:") && !granted.has(`${rule.tenant} ${rule.subject}`)) {
      report(file, line, "subject", grantMissing(rule.tenant, rule.subject));
    }
    for (const role of rule.rolesAsked) {
      if (!granted.has(`${rule.tenant} ${role}`)) report(file, line, "when", grantMissing(rule.tenant, role));
    }
    const { at, order, ...content } = rule;
    const key = JSON.stringify(content);
    const first = seen.get(key);
    if (first !== undefined) report(file, line, "", `It says the same as ${first}; remove one of them.`);
    seen.set(key, first ?? at);
  }
  checkRoleDepth(files.roles, report);
}

/** Casbin stops following roles at a depth, silently: what would be cut off is refused here. */
function checkRoleDepth(roles: readonly Placed<Link>[], report: Report): void {
  const parents = new Map<string, string[]>();
  for (const { value } of roles) {
    const key = `${value.tenant} ${value.from}`;
    parents.set(key, [...(parents.get(key) ?? []), `${value.tenant} ${value.to}`]);
  }
  const depths = new Map<string, number>();
  const depthOf = (name: string, below: readonly string[]): number => {
    const known = depths.get(name);
    if (known !== undefined) return known;
    if (below.includes(name) || below.length > MAX_ROLE_DEPTH) return Number.POSITIVE_INFINITY;
    const depth = Math.max(0, ...(parents.get(name) ?? []).map((parent) => 1 + depthOf(parent, [...below, name])));
    depths.set(name, depth);
    return depth;
  };
  for (const { value, file, line } of roles) {
    if (depthOf(`${value.tenant} ${value.from}`, []) > MAX_ROLE_DEPTH) {
      report(
        file,
        line,
        "role",
        `Roles go round in a circle or deeper than ${MAX_ROLE_DEPTH} here; shorten the chain.`,
      );
    }
  }
}

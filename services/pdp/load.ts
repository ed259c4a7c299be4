import { createHash } from "node:crypto";
import { join } from "node:path";
import { sha256Hex } from "../shared/json.ts";
import { type FileProblem, FileProblems } from "../shared/yaml-file.ts";
import { breathe } from "./breathe.ts";
import { type Bundle, readBundle, readText } from "./bundle.ts";
import { type Link, MAX_ROLE_DEPTH, type Model, ModelError, parseModel, type Rule } from "./casbin.ts";
import type { Decision } from "./decide.ts";
import type { Facts } from "./facts.ts";
import { type KnownConditions, type LineRule, parsePolicyLine } from "./lines.ts";
import { type CompiledPolicy, type CompileOptions, compilePolicy } from "./shards.ts";

/** One revision of the policy. Never changed once built. */
export type Policy = {
  /** SHA-256 of the model and every rule with its file and line: what `policy.csv:12` means is fixed by it. */
  readonly revision: string;
  /** How many rules: all, or one tenant's. */
  readonly countRules: (tenant?: string) => number;
  readonly decide: (facts: Facts) => Decision;
  readonly compiled: CompiledPolicy;
  readonly rules: readonly Rule[];
  /** Who has which role, and which tool is in which group. */
  readonly roles: readonly Link[];
  readonly groups: readonly Link[];
  readonly bundle: Bundle;
};

export const MAX_RULES = 200_000;
/** Of one policy, so many problems are told. */
const MAX_PROBLEMS = 100;

/** A line that was understood, for checks across lines. */
type Placed<T> = { readonly value: T; readonly file: string; readonly line: number };
type Files = {
  readonly rules: Placed<Rule>[];
  readonly roles: Placed<Link>[];
  readonly groups: Placed<Link>[];
  readonly seen: Map<string, string>;
};
type Report = (file: string, line: number | undefined, field: string, message: string) => void;

export type BuildOptions = CompileOptions & {
  /** The only tenant that its lines may name; absent: any. */
  readonly tenant?: string;
  /** Where its files are, for what is said of them. */
  readonly dir?: string;
};

/** @throws FileProblems with every problem of the directory. */
export async function loadPolicy(dir: string, options: CompileOptions = {}): Promise<Policy> {
  const problems: FileProblem[] = [];
  const gather = async <T>(read: Promise<T>): Promise<T | undefined> =>
    await read.catch((error: unknown) => {
      if (!(error instanceof FileProblems)) throw error;
      problems.push(...error.problems);
      return undefined;
    });
  const [model, bundle] = [await gather(loadModel(dir)), await gather(readBundle(dir))];
  const parsed = bundle === undefined ? undefined : await parseRules(bundle, { dir });
  problems.push(...(parsed?.problems ?? []));
  if (model === undefined || bundle === undefined || parsed === undefined || problems.length > 0) {
    throw new FileProblems(problems);
  }
  return await assemble(model, bundle, parsed, options);
}

/** @throws FileProblems */
export async function loadModel(dir: string): Promise<Model> {
  const file = join(dir, "model.conf");
  const text = await readText(file);
  try {
    return parseModel(text);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    const at = text.split("\n").findIndex((line) => new RegExp(`^\\s*${error.key}\\s*=`).test(line));
    const line = at < 0 || error.key === "" ? undefined : at + 1;
    throw new FileProblems([{ file, line, field: error.key, message: error.message }]);
  }
}

/**
 * Parses, checks and indexes the rules, a little at a time: what else the process does goes on meanwhile.
 * @throws FileProblems with every problem found, up to MAX_PROBLEMS.
 */
export async function buildPolicy(model: Model, bundle: Bundle, options: BuildOptions = {}): Promise<Policy> {
  const parsed = await parseRules(bundle, options);
  if (parsed.problems.length > 0) throw new FileProblems(parsed.problems);
  return await assemble(model, bundle, parsed, options);
}

type Parsed = { readonly files: Files; readonly problems: readonly FileProblem[]; readonly digest: string };

async function parseRules(bundle: Bundle, { dir = "", tenant }: Pick<BuildOptions, "dir" | "tenant">): Promise<Parsed> {
  const problems: FileProblem[] = [];
  const report: Report = (file, line, field, message) => {
    if (problems.length < MAX_PROBLEMS) problems.push({ file: join(dir, file), line, field, message });
  };
  const files: Files = { rules: [], roles: [], groups: [], seen: new Map() };
  const hash = createHash("sha256");
  const conditions: KnownConditions = new Map();
  for (const [file, text] of bundle) {
    if (!file.endsWith(".csv")) continue;
    for (const { line, raw } of linesOf(text)) {
      await breathe();
      if (readLine(file, line, raw, { files, conditions, report, tenant }))
        hash.update(JSON.stringify([file, line, raw.trim()]));
      if (files.rules.length <= MAX_RULES) continue;
      const message = `There are more than ${MAX_RULES} rules; use roles, prefixes and groups.`;
      return { files, problems: [{ file: join(dir, file), line, field: "", message }], digest: "" };
    }
  }
  await checkRoles(files, report);
  return { files, problems, digest: hash.digest("hex") };
}

async function assemble(
  model: Model,
  bundle: Bundle,
  { files, digest }: Parsed,
  options: CompileOptions,
): Promise<Policy> {
  const rules = files.rules.map(({ value }) => value);
  const roles = files.roles.map(({ value }) => value);
  const groups = files.groups.map(({ value }) => value);
  const compiled = await compilePolicy(model, rules, roles, groups, options);
  const tenants = new Map<string, number>();
  for (const rule of rules) tenants.set(rule.tenant, (tenants.get(rule.tenant) ?? 0) + 1);
  return {
    revision: sha256Hex(JSON.stringify([model.text, digest])),
    countRules: (tenant) => (tenant === undefined ? rules.length : (tenants.get(tenant) ?? 0)),
    decide: compiled.decide,
    ...{ compiled, rules, roles, groups, bundle },
  };
}

/** Counted from 1, without what ends them. */
export function* linesOf(text: string): Generator<{ line: number; raw: string }> {
  for (let from = 0, line = 1; from <= text.length; line++) {
    const end = text.indexOf("\n", from);
    const until = end < 0 ? text.length : end;
    yield { line, raw: text.slice(from, text[until - 1] === "\r" ? until - 1 : until) };
    from = until + 1;
  }
}

type Reading = {
  readonly files: Files;
  readonly conditions: KnownConditions;
  readonly report: Report;
  readonly tenant: string | undefined;
};

/** False for a line that says nothing. */
function readLine(file: string, line: number, raw: string, { files, conditions, report, tenant }: Reading): boolean {
  const parsed = parsePolicyLine(raw, conditions);
  const own = (named: string): void => {
    if (tenant === undefined || tenant === named) return;
    report(file, line, "tenant", `This is tenant ${named}'s, and you change the policy of ${tenant}; leave it out.`);
  };
  switch (parsed.kind) {
    case "blank":
      return false;
    case "broken":
      for (const { field, message } of parsed.problems) report(file, line, field, message);
      return true;
    case "rule": {
      own(parsed.rule.tenant);
      const at = `${file}:${line}`;
      const first = files.seen.get(parsed.key);
      if (first !== undefined) report(file, line, "", `It says the same as ${first}; remove one of them.`);
      files.seen.set(parsed.key, first ?? at);
      files.rules.push({ value: placed(parsed.rule, at, files.rules.length), file, line });
      return true;
    }
    case "role":
      own(parsed.link.tenant);
      files.roles.push({ value: parsed.link, file, line });
      return true;
    case "group":
      own(parsed.link.tenant);
      files.groups.push({ value: parsed.link, file, line });
      return true;
  }
}

function placed(rule: LineRule, at: string, order: number): Rule {
  return { ...rule, at, order };
}

/** What one line alone cannot show. A role nobody has is a slip: in a deny rule it would be no rule at all. */
async function checkRoles(files: Files, report: Report): Promise<void> {
  const granted = new Set(files.roles.map(({ value }) => `${value.tenant} ${value.to}`));
  const grantMissing = (tenant: string, role: string) =>
    `Nobody in tenant ${tenant} has ${role}: mend the name, or grant it with a line g, agent:<name>, ${role}, ${tenant}.`;
  for (const { value: rule, file, line } of files.rules) {
    await breathe();
    if (rule.subject.startsWith("role:") && !granted.has(`${rule.tenant} ${rule.subject}`)) {
      report(file, line, "subject", grantMissing(rule.tenant, rule.subject));
    }
    for (const role of rule.when.roles) {
      if (!granted.has(`${rule.tenant} ${role}`)) report(file, line, "when", grantMissing(rule.tenant, role));
    }
  }
  await checkRoleDepth(files.roles, report);
}

/** Casbin stops following roles at a depth, silently: what would be cut off is refused here. */
async function checkRoleDepth(roles: readonly Placed<Link>[], report: Report): Promise<void> {
  const parents = new Map<string, string[]>();
  for (const { value } of roles) {
    const key = `${value.tenant} ${value.from}`;
    const known = parents.get(key);
    if (known === undefined) parents.set(key, [`${value.tenant} ${value.to}`]);
    else known.push(`${value.tenant} ${value.to}`);
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
    await breathe();
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

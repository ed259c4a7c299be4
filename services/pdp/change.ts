import type { Verifier } from "../shared/signing.ts";
import { type FileProblem, FileProblems } from "../shared/yaml-file.ts";
import { breathe } from "./breathe.ts";
import { type Bundle, SIGNATURE_FILE } from "./bundle.ts";
import type { Model } from "./casbin.ts";
import { canBeChanged, checkPolicy, type Finding } from "./check.ts";
import type { Facts, ToolFacts } from "./facts.ts";
import { buildPolicy, linesOf, type Policy } from "./load.ts";
import { type Replayed, replay } from "./replay.ts";
import { checkSignature } from "./signed.ts";
import { parseTests, runTests, type TestResult } from "./table-tests.ts";

/** What can be known of a candidate before it is live. Nothing here changes anything. */
export type Examined = {
  /** undefined when its files cannot be used: the findings say why. */
  readonly policy: Policy | undefined;
  readonly findings: readonly Finding[];
  readonly results: readonly TestResult[];
  readonly replayed: Replayed | undefined;
  readonly diff: Diff;
  /** Who signed it; empty for nobody, or nobody whom we know. */
  readonly keyId: string;
};

export type Diff = { readonly lines: readonly string[]; readonly added: number; readonly removed: number };

export type ExamineOptions = {
  readonly model: Model;
  readonly tenant: string;
  readonly tools: readonly ToolFacts[];
  readonly verifier: Verifier | undefined;
  /** What is active. */
  readonly base: Policy;
  readonly recent: { readonly facts: readonly Facts[]; readonly sinceMs: number | undefined };
};

export async function examine(bundle: Bundle, options: ExamineOptions): Promise<Examined> {
  const { model, tenant, tools, verifier, base, recent } = options;
  const findings: Finding[] = [];
  const gather = async <T>(read: () => T | Promise<T>): Promise<T | undefined> => {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof FileProblems)) throw error;
      findings.push(...error.problems.map((problem) => ({ ...problem, severity: "error" as const })));
      return undefined;
    }
  };
  const signature = verifier === undefined ? undefined : checkSignature(bundle, verifier);
  if (signature?.kind === "refused") findings.push(wholeFile(SIGNATURE_FILE, signature.message));
  const policy = await gather(() => buildPolicy(model, bundle, { tenant }));
  const tests = await gather(() => parseTests(bundle, tools));
  if (policy !== undefined) findings.push(...(await checkPolicy(policy, tools)));
  if (policy !== undefined && !canBeChanged(policy, tenant)) {
    const keep = `p, ${tenant}, role:policy-admin, policy.*, allow, true, Policy admins may change the policy.`;
    findings.push(
      wholeFile("policy.csv", `With it nobody could change the policy any more; keep a rule such as ${keep}`),
    );
  }
  return {
    policy,
    findings,
    results: policy === undefined || tests === undefined ? [] : await runTests(policy, tests),
    replayed: policy === undefined ? undefined : await replay(recent.facts, base, policy, recent.sinceMs),
    diff: await diffLines(base.bundle, bundle, tenant),
    keyId: signature?.kind === "signed" ? signature.keyId : "",
  };
}

function wholeFile(file: string, message: string): Finding {
  return { severity: "error", file, line: undefined, field: "", message };
}

/** The first thing that stops it from going live, or undefined. */
export function obstacleOf({
  findings,
  results,
}: Examined): { reason: string; problem: FileProblem; count: number } | undefined {
  const errors = findings.filter(({ severity }) => severity === "error");
  const [problem] = errors;
  if (problem !== undefined) return { reason: "POLICY_UNSOUND", problem, count: errors.length };
  const failed = results.filter((result) => result.failure !== undefined);
  const [first] = failed;
  if (first?.failure === undefined) return undefined;
  const { file, line, name } = first.test;
  return {
    reason: "POLICY_TESTS_FAILED",
    problem: { file, line, field: name, message: first.failure },
    count: failed.length,
  };
}

/** Lines that say something: what is in one and not in the other, however the lines have moved within their file. */
export async function diffLines(before: Bundle, after: Bundle, tenant?: string): Promise<Diff> {
  const [old, young] = [await saidLines(before, tenant), await saidLines(after, tenant)];
  const gone = await without(old, young);
  const news = await without(young, old);
  const lines = [...(await marked("-", gone)), ...(await marked("+", news))];
  return { lines, added: news.length, removed: gone.length };
}

async function marked(mark: string, lines: readonly SaidLine[]): Promise<string[]> {
  const texts: string[] = [];
  for (const { at, text } of lines) {
    await breathe();
    texts.push(`${mark} ${at} ${text}`);
  }
  return texts;
}

/**
 * What a tenant may be shown of files that hold several tenants' rules: its own lines, in their places. Comments and tests
 * may speak of the others, so they stay out.
 */
export async function ownPart(bundle: Bundle, tenant: string): Promise<Bundle> {
  const own = new Map<string, string>();
  let foreign = false;
  for (const [file, text] of bundle) {
    if (!file.endsWith(".csv")) continue;
    const lines: string[] = [];
    for (const { raw } of linesOf(text)) {
      await breathe();
      const whose = tenantOfLine(raw.trim());
      foreign ||= whose !== undefined && whose !== tenant;
      lines.push(whose === tenant ? raw : "");
    }
    own.set(file, lines.join("\n"));
  }
  return foreign ? own : bundle;
}

/** undefined for a line that says nothing. */
function tenantOfLine(text: string): string | undefined {
  if (text === "" || text.startsWith("#")) return undefined;
  const [type = "", first = "", , third = ""] = text.split(",", 4).map((part) => part.trim());
  return type === "p" ? first : third;
}

type SaidLine = { readonly at: string; readonly text: string; readonly key: string };

/** A line that is said twice is two lines. */
async function without(lines: readonly SaidLine[], others: readonly SaidLine[]): Promise<SaidLine[]> {
  const left = new Map<string, number>();
  for (const { key } of others) {
    await breathe();
    left.set(key, (left.get(key) ?? 0) + 1);
  }
  const kept: SaidLine[] = [];
  for (const line of lines) {
    await breathe();
    const count = left.get(line.key) ?? 0;
    if (count > 0) left.set(line.key, count - 1);
    else kept.push(line);
  }
  return kept;
}

/** The rule files' lines, of one tenant or of all; tests are no part of what is decided. */
async function saidLines(bundle: Bundle, tenant: string | undefined): Promise<SaidLine[]> {
  const said: SaidLine[] = [];
  for (const [file, whole] of bundle) {
    if (!file.endsWith(".csv")) continue;
    for (const { line, raw } of linesOf(whole)) {
      await breathe();
      const text = raw.trim();
      const whose = tenantOfLine(text);
      if (whose === undefined || (tenant !== undefined && whose !== tenant)) continue;
      said.push({ at: `${file}:${line}`, text, key: `${file} ${text}` });
    }
  }
  return said;
}

import { z } from "zod";
import { NAME, TOOL_NAME } from "../shared/names.ts";
import { type FileProblem, FileProblems, parseYaml } from "../shared/yaml-file.ts";
import { breathe } from "./breathe.ts";
import type { Bundle } from "./bundle.ts";
import { type Decision, OUTCOMES } from "./decide.ts";
import {
  EFFECTS,
  type Facts,
  IMPACTS,
  LABELS,
  LOOP_VERDICTS,
  NOTHING_SPENT,
  ORIGINS,
  SPENT_UNITS,
  type ToolFacts,
} from "./facts.ts";
import type { Policy } from "./load.ts";
import { parseObligations } from "./obligations.ts";
import { matchOf, type Weighed } from "./shards.ts";

/**
 * Table tests of a policy: `tests/*.yaml` beside the rules. Each states facts, and what is decided on them. What a test
 * leaves out is as the file's defaults have it; its arguments are laid over theirs, one by one.
 */

const toolSchema = z.union([
  z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. orders.refund"),
  z.strictObject({
    name: z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. orders.refund"),
    impact: z.enum(IMPACTS).optional(),
    effects: z.array(z.enum(EFFECTS)).optional(),
    groups: z.array(z.string()).optional(),
  }),
]);

const factFields = {
  tenant: z.string().regex(NAME).optional(),
  agent: z.string().optional(),
  user: z.string().optional(),
  session: z.string().optional(),
  tool: toolSchema.optional(),
  args: z.record(z.string(), z.json()).optional(),
  labels: z.array(z.enum(LABELS)).optional(),
  loop: z.enum(LOOP_VERDICTS).optional(),
  chain: z.array(z.string()).optional(),
  spent: z.partialRecord(z.enum(SPENT_UNITS), z.int().min(0)).optional(),
  origins: z.array(z.enum(ORIGINS)).optional(),
  foreign: z.array(z.string()).optional(),
  time: z.iso.datetime({ offset: true, error: "write a time such as 2026-03-04T10:30:00Z" }).optional(),
};

const expectation = {
  expect: z.enum(OUTCOMES, `write ${OUTCOMES.join(", ")}`),
  rule: z.string().optional().describe("file:line of a rule that must be among those that decide"),
  reason: z.string().optional().describe("a sentence that must be among the reasons"),
  obligations: z.string().optional().describe("exactly these, as a rule's last column has them; '' for none"),
};

export const testFileSchema = z.strictObject({
  defaults: z.strictObject(factFields).default({}),
  tests: z
    .array(z.strictObject({ name: z.string().min(1).max(200), ...factFields, ...expectation }))
    .min(1)
    .max(10_000),
});

type Given = z.output<typeof testFileSchema>["tests"][number];

export type TableTest = {
  readonly file: string;
  readonly line: number;
  readonly name: string;
  readonly facts: Facts;
  readonly want: Pick<Given, "expect" | "rule" | "reason" | "obligations">;
};

export type TestResult = {
  readonly test: TableTest;
  readonly decision: Decision;
  /** Every candidate and its answer. */
  readonly weighed: readonly Weighed[];
  /** What is otherwise than wanted; undefined when it is as wanted. */
  readonly failure: string | undefined;
};

const DEFAULT_TIME = "2026-03-04T10:30:00Z";

/** A file is read in one go, and decisions wait for it. */
const MAX_FILE_LENGTH = 256 << 10;

/** @throws FileProblems naming file, line, field and mend. */
export async function parseTests(bundle: Bundle, tools: readonly ToolFacts[], dir = ""): Promise<TableTest[]> {
  const problems: FileProblem[] = [];
  const tests: TableTest[] = [];
  for (const [file, text] of bundle) {
    if (!file.endsWith(".yaml")) continue;
    await breathe();
    const shown = dir === "" ? file : `${dir}/${file}`;
    if (text.length > MAX_FILE_LENGTH) {
      const message = `It is longer than ${MAX_FILE_LENGTH} characters; spread its tests over several files.`;
      problems.push({ file: shown, line: undefined, field: "", message });
      continue;
    }
    try {
      const { value, lineOf } = parseYaml(shown, text, testFileSchema);
      for (const [i, given] of value.tests.entries()) {
        const line = lineOf(["tests", i]) ?? 0;
        const problem = (field: string, message: string) =>
          problems.push({ file: shown, line, field: `tests.${i}.${field}`, message });
        const args = { ...value.defaults.args, ...given.args };
        const test = parseTest({ ...value.defaults, ...given, args }, tools, problem);
        if (test !== undefined) tests.push({ file: shown, line, ...test });
      }
    } catch (error) {
      if (!(error instanceof FileProblems)) throw error;
      problems.push(...error.problems);
    }
  }
  if (problems.length > 0) throw new FileProblems(problems);
  return tests;
}

function parseTest(
  given: Given,
  tools: readonly ToolFacts[],
  problem: (field: string, message: string) => void,
): Omit<TableTest, "file" | "line"> | undefined {
  const { name, tenant, agent = "", user = "", expect, rule, reason, obligations } = given;
  if (tenant === undefined) problem("tenant", "Name the tenant, here or once under defaults.");
  if (agent === "" && user === "") problem("agent", "Name the agent, or the user who acts for themself.");
  const tool = toolOf(given.tool, tools, problem);
  const imposed = parseObligations(obligations ?? "", expect);
  if (imposed.kind === "refused") problem("obligations", imposed.message);
  if (tenant === undefined || tool === undefined || imposed.kind === "refused") return undefined;
  const facts: Facts = {
    ...{ tenant, agent, user, tool },
    session: given.session ?? "test",
    args: given.args ?? {},
    labels: given.labels ?? [],
    loop: given.loop ?? "clear",
    chain: given.chain ?? [],
    spent: { ...NOTHING_SPENT, ...given.spent },
    origins: given.origins,
    foreign: given.foreign,
    timeMs: Date.parse(given.time ?? DEFAULT_TIME),
  };
  const optional = {
    ...(rule && { rule }),
    ...(reason && { reason }),
    ...(obligations !== undefined && { obligations }),
  };
  return { name, facts, want: { expect, ...optional } };
}

function toolOf(
  given: Given["tool"],
  tools: readonly ToolFacts[],
  problem: (field: string, message: string) => void,
): ToolFacts | undefined {
  const name = typeof given === "string" ? given : given?.name;
  if (name === undefined) {
    problem("tool", "Name the tool, here or once under defaults.");
    return undefined;
  }
  const known = tools.find((tool) => tool.name === name) ?? policyTool(name);
  if (typeof given === "object") {
    const { impact, effects, groups } = given;
    const base = known ?? { name, version: "1.0.0", impact: "low", effects: [], groups: [] };
    return { ...base, ...(impact && { impact }), ...(effects && { effects }), ...(groups && { groups }) };
  }
  if (known === undefined) {
    problem("tool", `There is no tool ${name}; mend the name, or describe it: tool: { name: ${name}, impact: low }.`);
  }
  return known;
}

/** Changing the policy, as rules see it. */
export function policyTool(name: string): ToolFacts | undefined {
  if (!name.startsWith("policy.")) return undefined;
  return { name, version: "1.0.0", impact: "high", effects: ["writes"], groups: ["policy"] };
}

export async function runTests(policy: Policy, tests: readonly TableTest[]): Promise<TestResult[]> {
  const results: TestResult[] = [];
  for (const test of tests) {
    await breathe();
    const decision = policy.decide(test.facts);
    const weighed = policy.compiled.weigh(test.facts);
    results.push({ test, decision, weighed, failure: failureOf(test, decision, weighed) });
  }
  return results;
}

/** What is otherwise than the test wants, in one sentence. */
export function failureOf({ want }: TableTest, decision: Decision, weighed: readonly Weighed[]): string | undefined {
  if (decision.outcome !== want.expect) {
    return `expected ${want.expect}, decided ${decision.outcome}: ${decision.reasons.join(" ")}${shownRules(decision)}`;
  }
  const deciding = decidingRules(decision, weighed);
  if (want.rule !== undefined && !deciding.includes(want.rule)) {
    return `expected ${want.rule} to decide; it was ${deciding.length === 0 ? "no rule" : deciding.join(", ")}`;
  }
  if (want.reason !== undefined && !decision.reasons.includes(want.reason)) {
    return `expected the reason "${want.reason}"; it was "${decision.reasons.join(" ")}"`;
  }
  if (want.obligations === undefined) return undefined;
  const wanted = parseObligations(want.obligations, want.expect);
  if (wanted.kind === "refused") throw new Error(`a test has obligations that were not parsed: ${wanted.message}`);
  const [a, b] = [sorted(wanted.obligations), sorted(decision.obligations)];
  return a === b ? undefined : `expected the obligations ${a}; they were ${b}`;
}

function decidingRules({ outcome }: Decision, weighed: readonly Weighed[]): string[] {
  return weighed.flatMap(({ rule, answer }) => {
    const match = matchOf(rule, answer);
    const weighs = match?.kind === "broken" ? "deny" : match?.rule.outcome;
    return weighs === outcome ? [rule.at] : [];
  });
}

function shownRules({ matchedRules }: Decision): string {
  return matchedRules.length === 0 ? "" : ` (${matchedRules.join(", ")})`;
}

function sorted(value: object): string {
  return JSON.stringify(value, (_, part: unknown) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

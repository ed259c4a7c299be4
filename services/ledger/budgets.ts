import { z } from "zod";
import { NAME, TOOL_NAME } from "../shared/names.ts";
import { type FileProblem, FileProblems, readYaml, type YamlFile } from "../shared/yaml-file.ts";
import { INT64_MAX } from "./amounts.ts";
import type { BudgetInScope } from "./decider.ts";
import type { Scope } from "./state.ts";

/** `budgets.yaml`: what an operator lets a tenant, an agent, a session or a tool use. */

/** One rule of the file. With subject `*`, every agent, session or tool gets a counter of its own. */
export type Budget = {
  readonly name: string;
  readonly tenant: string;
  readonly scope: Scope;
  /** For scope tenant: the tenant. */
  readonly subject: string;
  readonly unit: "usd_micros" | "calls";
  readonly limit: bigint;
};

/** Who asks, for what: everything a budget's scope can name. */
export type Spender = {
  readonly tenant: string;
  readonly agent: string;
  readonly session: string;
  readonly tool: string;
};

export type Budgets = {
  /** How many the file has, of all tenants. */
  readonly size: number;
  readonly ofTenant: (tenant: string) => readonly Budget[];
  /** The wide ones first: tenant, agent, session, tool; of one scope, the named before `*`. Cost does not grow with the file. */
  readonly inScope: (spender: Spender) => readonly BudgetInScope[];
};

export const ANY = "*";
const name = z.string().regex(NAME, "use 1 to 64 letters, digits, '-' or '_', the first a letter or digit");

const WHOLE = "give a whole number of units, at least 0: 2_000_000 usd_micros are 2.00 USD";

/** Whole units. As text they may have `_` between thousands, for whoever counts the zeros. */
const limit = z
  .union(
    [
      z.int(WHOLE).min(0, WHOLE),
      z
        .string()
        .regex(/^(\d{1,19}|\d{1,3}(_\d{3}){1,6})$/)
        .transform((text) => BigInt(text.replaceAll("_", ""))),
    ],
    WHOLE,
  )
  .transform(BigInt)
  .refine((value) => value <= INT64_MAX, `give at most ${INT64_MAX}`);

const entry = z.strictObject({
  name: name.describe("refusals and listings show it"),
  tenant: name,
  scope: z.enum(["tenant", "agent", "session", "tool"], "use tenant, agent, session or tool"),
  subject: z.string().optional().describe("one agent, session or tool; absent or '*': each has its own"),
  unit: z.enum(["usd_micros", "calls"], "use usd_micros or calls"),
  limit: limit.describe("how much, over all time"),
});

export const budgetsSchema = z.strictObject({ budgets: z.array(entry).max(100_000) });

/** @throws FileProblems naming file, line, field and mend. */
export function loadBudgets(file: string): Budgets {
  const yaml = readYaml(file, budgetsSchema);
  const problems = [...problemsOf(file, yaml)];
  if (problems.length > 0) throw new FileProblems(problems);
  return indexBudgets(
    yaml.value.budgets.map(({ subject, ...budget }) => ({
      ...budget,
      subject: budget.scope === "tenant" ? budget.tenant : (subject ?? ANY),
    })),
  );
}

export function indexBudgets(budgets: readonly Budget[]): Budgets {
  const byTenant = new Map<string, Budget[]>();
  const bySubject = new Map<string, Budget[]>();
  for (const budget of budgets) {
    push(byTenant, budget.tenant, budget);
    push(bySubject, subjectKey(budget.tenant, budget.scope, budget.subject), budget);
  }
  return {
    size: budgets.length,
    ofTenant: (tenant) => byTenant.get(tenant) ?? [],
    inScope: (spender) => {
      const found: BudgetInScope[] = [];
      for (const scope of SCOPES) {
        const subject = spender[scope];
        for (const pattern of scope === "tenant" ? [subject] : [subject, ANY]) {
          for (const { name: budget, unit, limit } of bySubject.get(subjectKey(spender.tenant, scope, pattern)) ?? []) {
            found.push({ budget, scope, subject, unit, limit });
          }
        }
      }
      return found;
    },
  };
}

const SCOPES = ["tenant", "agent", "session", "tool"] as const;

/** No name has a space. */
function subjectKey(tenant: string, scope: Scope, subject: string): string {
  return `${tenant} ${scope} ${subject}`;
}

function push(map: Map<string, Budget[]>, key: string, budget: Budget): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [budget]);
  else list.push(budget);
}

/** What one entry, or two together, say wrong. */
function* problemsOf(file: string, yaml: YamlFile<z.output<typeof budgetsSchema>>): Generator<FileProblem> {
  const names = new Map<string, number | undefined>();
  const caps = new Map<string, { name: string; line: number | undefined }>();
  for (const [i, { name, tenant, scope, subject, unit }] of yaml.value.budgets.entries()) {
    const problem = (field: string, message: string): FileProblem => {
      return { file, line: yaml.lineOf(["budgets", i, field]), field: `budgets.${i}.${field}`, message };
    };
    const wrong = subject === undefined ? undefined : wrongSubject(scope, subject);
    if (wrong !== undefined) yield problem("subject", wrong);
    const nameKey = `${tenant} ${name}`;
    if (names.has(nameKey)) {
      yield problem(
        "name",
        `Tenant ${tenant} has a budget ${name} already, on line ${names.get(nameKey)}; rename one.`,
      );
    } else names.set(nameKey, yaml.lineOf(["budgets", i, "name"]));
    const capKey = `${tenant} ${scope} ${subject ?? ANY} ${unit}`;
    const other = caps.get(capKey);
    if (other !== undefined) {
      const what = scope === "tenant" ? "the tenant" : `${scope} ${subject ?? ANY}`;
      const where = `${other.name} on line ${other.line}`;
      yield problem("limit", `It caps the ${unit} of ${what}, as ${where} does; keep the one that you mean.`);
    } else caps.set(capKey, { name, line: yaml.lineOf(["budgets", i, "limit"]) });
  }
}

function wrongSubject(scope: Scope, subject: string): string | undefined {
  if (scope === "tenant") return "Leave subject out: a tenant's budget is the tenant's.";
  if (subject === ANY) return undefined;
  if (scope === "tool") {
    return TOOL_NAME.test(subject) ? undefined : "Name one tool, as data.analyse_csv, or write '*' for each.";
  }
  return NAME.test(subject) ? undefined : `Name one ${scope}, or write '*' for each.`;
}

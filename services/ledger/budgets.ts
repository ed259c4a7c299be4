import { z } from "zod";
import { canonicalJson, type Json, sha256Hex } from "../shared/json.ts";
import { NAME } from "../shared/names.ts";
import { type FileProblem, FileProblems, parseYaml, readYaml, type YamlFile } from "../shared/yaml-file.ts";
import { INT64_MAX, UNIT_NAME, UNITS } from "./amounts.ts";
import { type Rule, ruleId } from "./rules.ts";
import { ruleToJson } from "./rules-codec.ts";
import { parseScope, type Scope, scopeText } from "./scope.ts";
import { isZone, PERIODS, type Period, type Window } from "./window.ts";

/** `budgets.yaml`: what an operator lets a tenant, an agent, a user, a session or a tool use, and over which time. */

/** The budgets of one tenant. The revision is the SHA-256 of what they say. */
export type TenantBudgets = {
  readonly tenant: string;
  readonly revision: string;
  readonly units: readonly string[];
  readonly rules: readonly Rule[];
};

export type Budgets = {
  /** How many there are, of all tenants. */
  readonly size: number;
  readonly tenants: readonly string[];
  /** Every unit that a price may be in: those that need no declaration and the file's own. */
  readonly units: readonly string[];
  /** Also of a tenant without any: its revision says that there are none. */
  readonly ofTenant: (tenant: string) => TenantBudgets;
};

const name = z.string().regex(NAME, "use 1 to 64 letters, digits, '-' or '_', the first a letter or digit");

const WHOLE = "give a whole number of units, at least 0: 2_000_000 usd_micros are 2.00 USD";

/** Whole units. As text they may have `_` between thousands, for whoever counts the zeros. */
const whole = z
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

const DURATION = "write a time as 500ms, 30s, 5m, 12h or 7d";
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const MAX_EVERY_MS = 366 * 86_400_000;

const duration = z
  .string(DURATION)
  .regex(/^[1-9]\d{0,8}(ms|s|m|h|d)$/, DURATION)
  .transform((text) => {
    const [, count = "", unit = ""] = /^(\d+)(\D+)$/.exec(text) ?? [];
    return Number(count) * (UNIT_MS[unit] ?? Number.NaN);
  })
  .refine((ms) => ms <= MAX_EVERY_MS, "give at most 366d");

const window = z.union(
  [
    z.strictObject({
      calendar: z.enum(PERIODS, `use ${PERIODS.join(", ")}`),
      zone: z.string().refine(isZone, "is no time zone known here; write one as Europe/Berlin, or UTC").default("UTC"),
    }),
    z.strictObject({
      rolling: duration.describe("this long until what was used has come back"),
      burst: whole.optional().describe("how much may be used at once; default: limit"),
    }),
  ],
  "write { calendar: day, zone: Europe/Berlin } or { rolling: 1m, burst: 10 }, or leave it out for all time",
);

const scope = z.string().transform((text, context): Scope => {
  const parsed = parseScope(text);
  if (typeof parsed !== "string") return parsed;
  context.addIssue(parsed);
  return z.NEVER;
});

const DEFAULT_ALERTS = [50, 80, 100];

const entry = z.strictObject({
  name: name.describe("refusals and listings show it"),
  tenant: name,
  scope: scope.describe("tenant, or agent, user, session, tool, group, joined by &; agent:a1 names one"),
  unit: z.string().describe("usd_micros, calls, cpu_ms, tokens, egress_bytes, or one of `units`"),
  limit: whole.describe("how much, in one window"),
  window: window.optional().describe("absent: over all time"),
  alerts: z
    .array(z.int().min(1).max(100))
    .max(10)
    .default(DEFAULT_ALERTS)
    .describe("percent of the limit that are signalled when they are passed"),
});

const unit = z.string().regex(UNIT_NAME, "use up to 32 lower-case letters, digits or '_', the first a letter");

export const budgetsSchema = z.strictObject({
  units: z.record(unit, z.string().min(1)).default({}).describe("units of your own, each with what it counts"),
  budgets: z.array(entry).max(200_000),
});

type Parsed = YamlFile<z.output<typeof budgetsSchema>>;

/** @throws FileProblems naming file, line, field and mend. */
export function loadBudgets(file: string): Budgets {
  return toBudgets(file, readYaml(file, budgetsSchema));
}

/** The same from text, for what is sent and not read. @throws FileProblems */
export function parseBudgets(file: string, text: string): Budgets {
  return toBudgets(file, parseYaml(file, text, budgetsSchema));
}

function toBudgets(file: string, yaml: Parsed): Budgets {
  const problems = [...problemsOf(file, yaml)];
  if (problems.length > 0) throw new FileProblems(problems);
  const { units, budgets } = yaml.value;
  const tenants = [...new Set(budgets.map(({ tenant }) => tenant))];
  const byTenant = Map.groupBy(budgets, ({ tenant }) => tenant);
  return {
    size: budgets.length,
    tenants,
    units: [...UNITS, ...Object.keys(units)],
    ofTenant: (tenant) => tenantBudgets(tenant, Object.keys(units), (byTenant.get(tenant) ?? []).map(toRule)),
  };
}

export function tenantBudgets(tenant: string, units: readonly string[], rules: readonly Rule[]): TenantBudgets {
  const revision = sha256Hex(canonicalJson({ units, rules: rules.map(ruleToJson) } as Json));
  return { tenant, revision, units, rules };
}

type Entry = z.output<typeof entry>;

function toRule(of: Entry): Rule {
  const { name: named, scope: whose, unit: counted, alerts } = of;
  const rule = { name: named, scope: whose, unit: counted, window: windowOf(of), limit: limitOf(of) };
  return { id: ruleId(rule), ...rule, alerts: [...new Set(alerts)].sort((a, b) => a - b) };
}

/** A rolling window lets `limit` come back in its time; the bucket itself holds `burst`. */
function windowOf({ window: of, limit }: Entry): Window {
  if (of === undefined) return { kind: "total" };
  if ("rolling" in of) return { kind: "rolling", refill: limit, everyMs: of.rolling };
  return { kind: "calendar", period: of.calendar, zone: of.zone };
}

function limitOf({ window: of, limit }: Entry): bigint {
  return of !== undefined && "rolling" in of ? (of.burst ?? limit) : limit;
}

/** What one entry, or two together, say wrong. */
function* problemsOf(file: string, yaml: Parsed): Generator<FileProblem> {
  const { budgets, units } = yaml.value;
  const known = new Set<string>([...UNITS, ...Object.keys(units)]);
  const names = new Map<string, number | undefined>();
  const caps = new Map<string, number>();
  const spans = new Map<string, number[]>();
  const problem = (i: number, field: string, message: string): FileProblem => {
    return { file, line: yaml.lineOf(["budgets", i, field]), field: `budgets.${i}.${field}`, message };
  };
  for (const own of Object.keys(units)) {
    if ((UNITS as readonly string[]).includes(own)) {
      yield { file, line: yaml.lineOf(["units", own]), field: `units.${own}`, message: `${own} is there already.` };
    }
  }
  for (const [i, of] of budgets.entries()) {
    const { tenant, unit: counted } = of;
    const lineOf = (other: number, field: string) => yaml.lineOf(["budgets", other, field]);
    if (!known.has(counted)) {
      yield problem(i, "unit", `${counted} is no unit; use ${[...known].join(", ")}, or declare it under units.`);
    }
    const nameKey = `${tenant} ${of.name}`;
    if (names.has(nameKey)) {
      yield problem(
        i,
        "name",
        `Tenant ${tenant} has a budget ${of.name} already, on line ${names.get(nameKey)}; rename one.`,
      );
    } else names.set(nameKey, lineOf(i, "name"));
    const what = `${tenant} ${scopeText(of.scope)} ${counted}`;
    const cap = `${what} ${spanText(of)}`;
    const twin = caps.get(cap);
    if (twin !== undefined) {
      const other = `${budgets[twin]?.name} on line ${lineOf(twin, "limit")}`;
      const whose = of.scope.length === 0 ? "the tenant" : scopeText(of.scope);
      yield problem(i, "limit", `It caps the ${counted} of ${whose}, as ${other} does; keep the one that you mean.`);
      continue;
    }
    caps.set(cap, i);
    for (const j of spans.get(what) ?? []) {
      const [short, long] = liesWithin(of, budgets[j]) ? [i, j] : [j, i];
      const [inner, outer] = [budgets[short], budgets[long]];
      if (inner === undefined || outer === undefined) continue;
      if (!liesWithin(inner, outer) || inner.limit <= outer.limit) continue;
      const says = `${outer.name} on line ${lineOf(long, "limit")} lets no more than ${outer.limit} through in longer`;
      yield problem(short, "limit", `${inner.limit} can never be used: ${says}; lower this or raise that.`);
    }
    spans.set(what, [...(spans.get(what) ?? []), i]);
  }
}

/** Two of the same kind of window cap the same, whatever their zones or rates. */
function spanText({ window: of }: Entry): string {
  if (of === undefined) return "total";
  return "rolling" in of ? "rolling" : of.calendar;
}

/** Whether every window of the one is part of one window of the other: a week may be in two months. */
function liesWithin({ window: inner }: Entry, outer: Entry | undefined): boolean {
  if (inner === undefined || outer === undefined || "rolling" in inner) return false;
  if (outer.window === undefined) return true;
  if ("rolling" in outer.window || outer.window.zone !== inner.zone) return false;
  return LIES_WITHIN[inner.calendar].includes(outer.window.calendar);
}

const LIES_WITHIN: Readonly<Record<Period, readonly Period[]>> = {
  hour: ["day", "week", "month"],
  day: ["week", "month"],
  week: [],
  month: [],
};

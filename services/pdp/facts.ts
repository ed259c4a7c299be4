import type { JsonObject } from "../shared/json.ts";
import type { StaticType } from "./functions.ts";

/** What policy sees of a call, in our own types. */
export const IMPACTS = ["low", "medium", "high"] as const;
export const EFFECTS = ["reads", "writes", "sends", "spends", "irreversible"] as const;
export const LABELS = ["untrusted-input", "private-data", "secret-data"] as const;
export const LOOP_VERDICTS = ["clear", "repeating", "warned", "ask", "stopped"] as const;

/** Where the values of a call's arguments were seen first: docs/guard.md. */
export const ORIGINS = ["user", "config", "trusted", "untrusted", "nowhere", "unknown"] as const;

/** Of what the session has been charged, what conditions may read. */
export const SPENT_UNITS = ["usd_micros", "calls", "cpu_ms", "tokens", "egress_bytes"] as const;

/** What policy sees of a tool. */
export type ToolFacts = {
  readonly name: string;
  readonly version: string;
  readonly impact: (typeof IMPACTS)[number];
  readonly effects: readonly (typeof EFFECTS)[number][];
  readonly groups: readonly string[];
};

export type Facts = {
  readonly tenant: string;
  /** Empty when a person acts for themself. */
  readonly agent: string;
  /** Empty when no session is asked about. */
  readonly session: string;
  /** Empty when the agent acts for nobody. */
  readonly user: string;
  readonly tool: ToolFacts;
  /** undefined: not known yet. */
  readonly args: JsonObject | undefined;
  readonly labels: readonly (typeof LABELS)[number][];
  readonly loop: (typeof LOOP_VERDICTS)[number];
  readonly timeMs: number;
  /** The tools of the calls that this one is nested in, nearest first. */
  readonly chain: readonly string[];
  readonly spent: Readonly<Record<(typeof SPENT_UNITS)[number], number>>;
  /** Absent: of none is anything known. */
  readonly origins?: readonly (typeof ORIGINS)[number][] | undefined;
  /** The arguments that hold values first seen in untrusted results. */
  readonly foreign?: readonly string[] | undefined;
};

export const NOTHING_SPENT: Facts["spent"] = { usd_micros: 0, calls: 0, cpu_ms: 0, tokens: 0, egress_bytes: 0 };

/** Who asks, as rules name them. */
export function subjectOf({ agent, user }: Pick<Facts, "agent" | "user">): string {
  return agent === "" ? `user:${user}` : `agent:${agent}`;
}

/** What a condition may read: the model's request tokens, with what is known of each before any call. */
export const TOKENS: Readonly<
  Record<
    string,
    { readonly type: StaticType; readonly values?: readonly string[]; readonly fields?: readonly string[] }
  >
> = {
  tenant: { type: "text" },
  subject: { type: "text" },
  agent: { type: "text" },
  session: { type: "text" },
  user: { type: "text" },
  person: { type: "text" },
  tool: { type: "text" },
  version: { type: "text" },
  impact: { type: "text", values: IMPACTS },
  effects: { type: "list", values: EFFECTS },
  groups: { type: "list" },
  labels: { type: "list", values: LABELS },
  loop: { type: "text", values: LOOP_VERDICTS },
  time: { type: "object", fields: ["unix_ms", "hour", "minute", "weekday", "date"] },
  depth: { type: "number" },
  chain: { type: "list" },
  spent: { type: "object", fields: SPENT_UNITS },
  origins: { type: "list", values: ORIGINS },
  foreign: { type: "list" },
  args: { type: "object" },
};

/** The request as the matcher sees it, each value under the name Casbin gives its token. */
export function toRequest(facts: Facts): Record<string, unknown> {
  return {
    r_tenant: facts.tenant,
    r_subject: subjectOf(facts),
    r_agent: facts.agent,
    r_session: facts.session,
    r_user: facts.user,
    r_person: facts.user === "" ? "" : `user:${facts.user}`,
    r_tool: facts.tool.name,
    r_version: facts.tool.version,
    r_impact: facts.tool.impact,
    r_effects: facts.tool.effects,
    r_groups: facts.tool.groups,
    r_labels: facts.labels,
    r_loop: facts.loop,
    r_time: timeOf(facts.timeMs),
    r_depth: facts.chain.length,
    r_chain: facts.chain,
    r_spent: facts.spent,
    r_origins: facts.origins ?? [],
    r_foreign: facts.foreign ?? [],
    r_args: facts.args,
  };
}

const DAY_MS = 86_400_000;
let lastDay = { day: Number.NaN, weekday: 0, date: "" };

/** All in UTC. */
function timeOf(unixMs: number) {
  const day = Math.floor(unixMs / DAY_MS);
  if (day !== lastDay.day) {
    const time = new Date(unixMs);
    // ISO: Monday is 1, Sunday is 7.
    lastDay = { day, weekday: time.getUTCDay() === 0 ? 7 : time.getUTCDay(), date: time.toISOString().slice(0, 10) };
  }
  const minutes = Math.floor((unixMs - day * DAY_MS) / 60_000);
  const { weekday, date } = lastDay;
  return { unix_ms: unixMs, hour: Math.floor(minutes / 60), minute: minutes % 60, weekday, date };
}

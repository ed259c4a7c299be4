import type { JsonObject } from "../shared/json.ts";
import type { StaticType } from "./functions.ts";

/** What policy sees of a call, in our own types. */
export const IMPACTS = ["low", "medium", "high"] as const;
export const EFFECTS = ["reads", "writes", "sends", "spends", "irreversible"] as const;
export const LABELS = ["untrusted-input", "private-data"] as const;
export const LOOP_VERDICTS = ["clear", "repeating", "stopped"] as const;

export type Facts = {
  readonly tenant: string;
  readonly agent: string;
  /** Empty when no session is asked about. */
  readonly session: string;
  /** Empty when the agent acts for nobody. */
  readonly user: string;
  readonly tool: {
    readonly name: string;
    readonly version: string;
    readonly impact: (typeof IMPACTS)[number];
    readonly effects: readonly (typeof EFFECTS)[number][];
    readonly groups: readonly string[];
  };
  /** undefined: not known yet. */
  readonly args: JsonObject | undefined;
  readonly labels: readonly (typeof LABELS)[number][];
  readonly loop: (typeof LOOP_VERDICTS)[number];
  readonly timeMs: number;
};

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
  tool: { type: "text" },
  version: { type: "text" },
  impact: { type: "text", values: IMPACTS },
  effects: { type: "list", values: EFFECTS },
  groups: { type: "list" },
  labels: { type: "list", values: LABELS },
  loop: { type: "text", values: LOOP_VERDICTS },
  time: { type: "object", fields: ["unix_ms", "hour", "minute", "weekday", "date"] },
  args: { type: "object" },
};

/** The request as the matcher sees it, each value under the name Casbin gives its token. */
export function toRequest(facts: Facts): Record<string, unknown> {
  const time = new Date(facts.timeMs);
  return {
    r_tenant: facts.tenant,
    r_subject: `agent:${facts.agent}`,
    r_agent: facts.agent,
    r_session: facts.session,
    r_user: facts.user,
    r_tool: facts.tool.name,
    r_version: facts.tool.version,
    r_impact: facts.tool.impact,
    r_effects: facts.tool.effects,
    r_groups: facts.tool.groups,
    r_labels: facts.labels,
    r_loop: facts.loop,
    r_time: {
      unix_ms: facts.timeMs,
      hour: time.getUTCHours(),
      minute: time.getUTCMinutes(),
      // ISO: Monday is 1, Sunday is 7.
      weekday: time.getUTCDay() === 0 ? 7 : time.getUTCDay(),
      date: time.toISOString().slice(0, 10),
    },
    r_args: facts.args,
  };
}

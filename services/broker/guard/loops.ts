import type { Config } from "../../shared/config.ts";
import type { Decision } from "../model.ts";
import { judgeRepeat, type RepeatWindow } from "./repeats.ts";
import type { Signature } from "./signature.ts";
import type { LoopWindow, Seen } from "./window.ts";

/**
 * Whether a session goes in circles, judged on the call that would come next. Pure and bounded: it reads the last
 * `WINDOW` calls, whatever the session's length.
 *
 * L1. What a rule refuses is counted as asked for, so no refusal ends what it refuses.
 * L2. A rule looks at whole turns: refusing one call of a cycle does not start another count.
 * L3. The sharpest verdict counts. Rules do not know each other.
 */

export const LOOP_LEVELS = ["clear", "repeating", "warned", "ask", "stopped"] as const;
export type LoopLevel = (typeof LOOP_LEVELS)[number];

export const LOOP_RULES = ["repeat", "no_progress", "polling", "cycle", "errors", "stale", "session"] as const;
export type LoopRule = (typeof LOOP_RULES)[number];

export type LoopVerdict =
  | { readonly level: "clear" }
  | {
      readonly level: Exclude<LoopLevel, "clear">;
      readonly rule: LoopRule;
      /** How often it has happened, this call included. */
      readonly count: number;
      /** What happens and what to do instead, for the agent and for people. */
      readonly message: string;
    };

export const CLEAR: LoopVerdict = { level: "clear" };

/** The thresholds: what each rung means is in the configuration's own words. */
export type LoopLimits = Config["loops"];
type Ladder = LoopLimits["cycle"];

export function judgeLoop(
  seen: { readonly repeats: RepeatWindow; readonly window: LoopWindow },
  call: { readonly tool: string; readonly signature: Signature },
  limits: LoopLimits,
): LoopVerdict {
  const { window } = seen;
  const { tool, signature } = call;
  const over = sessionOver(window, limits);
  if (over !== undefined) return over;
  const found =
    signature.polls > 0
      ? [polling(window, signature, tool)]
      : [
          repeat(seen.repeats, signature, tool, limits),
          onLadder("no_progress", standstillOf(window, signature), limits.no_progress, tool),
          onLadder("cycle", turnsOf(window, signature), limits.cycle, tool),
        ];
  found.push(onLadder("errors", failuresOf(window, tool), limits.errors, tool));
  if (signature.paid) found.push(onLadder("stale", staleOf(window) + 1, limits.stale, tool));
  return found.reduce((worst, verdict) => (rank(verdict) > rank(worst) ? verdict : worst), CLEAR);
}

/** What policy allowed waits for people where the session seems to go in circles; what it denied stays denied. */
export function withLoop(decision: Decision, loop: LoopVerdict): Decision {
  if (loop.level !== "ask" || decision.kind === "deny") return decision;
  return { ...decision, kind: "require_approval", reasons: [loop.message, ...decision.reasons] };
}

function rank({ level }: LoopVerdict): number {
  return LOOP_LEVELS.indexOf(level);
}

function onLadder(rule: LoopRule, count: number, { warn, ask, stop }: Ladder, tool: string): LoopVerdict {
  const at = (level: Exclude<LoopLevel, "clear">): LoopVerdict => ({
    level,
    rule,
    count,
    message: say(rule, count, tool),
  });
  if (stop !== undefined && count >= stop) return at("stopped");
  if (ask !== undefined && count >= ask) return at("ask");
  if (warn !== undefined && count >= warn) return at("warned");
  return CLEAR;
}

function repeat(repeats: RepeatWindow, { key }: Signature, tool: string, limits: LoopLimits): LoopVerdict {
  const count = repeats.signature === key ? repeats.count + 1 : 1;
  const level = judgeRepeat(repeats, key, limits.exact_repeat_limit);
  if (level === "clear") return CLEAR;
  return { level, rule: "repeat", count, message: say("repeat", count - 1, tool) };
}

function sessionOver(window: LoopWindow, { end_session_after: most }: LoopLimits): LoopVerdict | undefined {
  const count = window.filter(({ kind }) => kind === "vetoed").length;
  if (count < most) return undefined;
  return { level: "stopped", rule: "session", count, message: say("session", count, "") };
}

/** A polling tool may ask the same again; after so many equal answers it is told to wait, and then refused. */
function polling(window: LoopWindow, signature: Signature, tool: string): LoopVerdict {
  const { polls } = signature;
  return onLadder(
    "polling",
    standstillOf(window, signature),
    { warn: Math.ceil(polls / 2) + 1, stop: polls + 1 },
    tool,
  );
}

/**
 * The nth of equal calls with an equal result: counted back until one had another result, or until something was done
 * in between that had not been done before. Calls that only look alike count where their results were equal.
 */
function standstillOf(window: LoopWindow, signature: Signature): number {
  let count = 1;
  let result: string | undefined;
  for (let i = window.length - 1; i >= 0; i--) {
    const seen = window[i] as Seen;
    if (isLike(signature, seen)) {
      if (seen.kind === "open") continue;
      if (seen.kind !== "vetoed") {
        if (result !== undefined && result !== seen.result) return count;
        result = seen.result;
      }
      count++;
    } else if (seen.effects && seen.kind === "done" && seen.fresh) return count;
  }
  return count;
}

/** The shortest and the longest cycle, calls. */
const PERIODS = { least: 2, most: 6 } as const;
/** Of the calls that a cycle's turns hold, at least one in so many belongs to it; the others are noise. */
const NOISE = 4;
const REACH = PERIODS.most * NOISE;

/**
 * How many turns of a cycle this call ends. The turns are what lies between equal calls; what they have in common, in
 * order, is the cycle (a longest common subsequence by the table of Wagner and Fischer, 1974), and what they have not is noise.
 */
function turnsOf(window: LoopWindow, signature: Signature): number {
  const calls = window.filter((seen) => seen.polls === 0);
  const places = calls.flatMap((seen, i) => (isLike(signature, seen) ? [i] : []));
  if (places.length === 0) return 0;
  let core: readonly Seen[] | undefined;
  let turns = 0;
  let spent = 0;
  for (let end = calls.length, p = places.length - 1; p >= -1; end = places[p--] ?? 0) {
    const start = p < 0 ? Math.max(0, end - REACH) : (places[p] ?? 0) + 1;
    const turn = calls.slice(start, end);
    if (turn.length === 0) continue; // asked for again at once: the same turn
    const common: readonly Seen[] = core === undefined ? turn : commonOf(core, turn);
    if (common.length + 1 < PERIODS.least || turn.length >= REACH + 1) break;
    core = common;
    // Before the first call of its kind the turn has no beginning: it is as long as what it shares.
    spent += 1 + (p < 0 ? common.length : turn.length);
    turns++;
    if (spent > NOISE * turns * (common.length + 1)) return turns - 1;
  }
  return core !== undefined && turns > 1 && core.length + 1 <= PERIODS.most ? turns : 0;
}

/** The longest common subsequence, as it stands in `a`. */
function commonOf(a: readonly Seen[], b: readonly Seen[]): readonly Seen[] {
  const width = b.length + 1;
  const table = new Uint8Array((a.length + 1) * width);
  const at = (i: number, j: number): number => table[i * width + j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const same = isSame(a[i] as Seen, b[j] as Seen);
      table[i * width + j] = same ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const common: Seen[] = [];
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    if (isSame(a[i] as Seen, b[j] as Seen)) {
      common.push(a[i] as Seen);
      i++;
      j++;
    } else if (at(i + 1, j) >= at(i, j + 1)) i++;
    else j++;
  }
  return common;
}

/** How often the tool has failed since it last did not, nothing new having been done meanwhile. */
function failuresOf(window: LoopWindow, tool: string): number {
  let count = 0;
  for (let i = window.length - 1; i >= 0; i--) {
    const seen = window[i] as Seen;
    if (seen.tool === tool && seen.kind === "failed") count++;
    else if (seen.tool === tool && seen.kind === "done") return count;
    else if (seen.effects && seen.kind === "done" && seen.fresh) return count;
  }
  return count;
}

/** Paid calls since something new was learned or done. */
function staleOf(window: LoopWindow): number {
  let count = 0;
  for (let i = window.length - 1; i >= 0; i--) {
    const { kind, fresh, paid } = window[i] as Seen;
    if (kind !== "done" && kind !== "failed") continue;
    if (fresh) return count;
    if (paid) count++;
  }
  return count;
}

/** A call to come and one that was. */
function isLike(signature: Signature, seen: Seen): boolean {
  return signature.key === seen.key || (signature.loose === seen.loose && seen.result !== "");
}

function isSame(a: Seen, b: Seen): boolean {
  return a.key === b.key || (a.loose === b.loose && a.result !== "" && a.result === b.result);
}

function say(rule: LoopRule, count: number, tool: string): string {
  switch (rule) {
    case "repeat":
      return `${tool} was called with the same arguments ${count} times in a row; change the arguments or do something else first.`;
    case "no_progress":
      return `${tool} was asked the same ${count - 1} times and answered the same each time; use the answer you have, or ask for something else.`;
    case "polling":
      return `${tool} has answered the same ${count - 1} times; wait before you ask again, and do other work meanwhile.`;
    case "cycle":
      return `The same calls have gone round ${count} times, ${tool} among them; leave this plan and try another, or say that you cannot go on.`;
    case "errors":
      return `${tool} has failed ${count} times in a row; read its error, and change what you ask for instead of asking again.`;
    case "stale":
      return `The last ${count} paid calls brought nothing new; finish with what is known, or say that you cannot go on.`;
    case "session":
      return `${count} of this session's last calls were refused as loops, so it is over; start a new one with another plan.`;
  }
}

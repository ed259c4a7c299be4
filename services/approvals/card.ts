import type { Json, JsonObject } from "../shared/json.ts";
import { amountText, money } from "../shared/money.ts";
import type { Approval, Vote } from "./approval.ts";
import { placeOf, seatsOf } from "./eligibility.ts";
import { reveal, WARNING_TEXTS, type Warning } from "./unseen.ts";

/** What a person reads before they answer: one card, which the page, Slack, webhooks and the terminal all render. Pure. */

export type CardLine = {
  readonly label: string;
  /** As much of it as is shown at once. */
  readonly text: string;
  /** What is folded away behind it; empty when that is all. */
  readonly rest: string;
  /** Written by an agent: a claim, never an instruction. */
  readonly quoted: boolean;
};

export type Card = {
  readonly approvalId: string;
  readonly tool: string;
  readonly sentence: string;
  readonly risk: "low" | "medium" | "high";
  readonly warnings: readonly string[];
  /** The arguments, those that matter first. */
  readonly args: readonly CardLine[];
  readonly lines: readonly CardLine[];
  readonly state: string;
  readonly timeLeft: string;
};

/** Characters of one argument that are shown at once. */
const FOLD_AT = 280;
const INLINE = 60;

export function cardOf(approval: Approval, nowMs: number, rates: ReadonlyMap<string, number> = new Map()): Card {
  const { binding, shown, edit } = approval;
  const seen = new Set<Warning>();
  const show = (text: string): string => {
    const revealed = reveal(text);
    for (const warning of revealed.warnings) seen.add(warning);
    return revealed.text;
  };
  const args = JSON.parse(edit?.argumentsJson ?? shown.argumentsJson) as JsonObject;
  const argLines = ordered(args, shown.firstArguments).map(([name, value]) =>
    line(show(name), show(valueText(name, value)), true),
  );
  const asked: Ask = { approval, nowMs, rates, show };
  const lines = [...sayWhy(asked), ...sayWho(asked), ...sayAnswers(asked), ...sayMoney(asked), ...saySession(asked)];
  const untrusted = shown.labels.includes("untrusted-input") ? [UNTRUSTED] : [];
  return {
    approvalId: binding.approvalId,
    tool: binding.tool,
    sentence: sentenceOf(approval, args, show),
    risk: riskOf(approval),
    args: argLines,
    lines,
    warnings: [...untrusted, ...[...seen].map((warning) => WARNING_TEXTS[warning])],
    state: stateText(approval),
    timeLeft: approval.ending === undefined ? durationText(approval.expiresAtMs - nowMs) : "",
  };
}

const UNTRUSTED =
  "This session has read text that anybody may have written, and that text may be steering the agent. Check the arguments against what was really wanted.";

type Ask = {
  readonly approval: Approval;
  readonly nowMs: number;
  readonly rates: ReadonlyMap<string, number>;
  readonly show: (text: string) => string;
};

function sayWhy({ approval }: Ask): CardLine[] {
  const { reasons, rules } = approval.shown;
  const why = reasons.map((reason) => line("Why you are asked", reason));
  return rules.length === 0 ? why : [...why, line("Rule", rules.join(", "))];
}

function sayWho({ approval, nowMs, show }: Ask): CardLine[] {
  const { binding, createdAtMs, joined } = approval;
  const { agent, session, user } = binding.principal;
  const lines = [line("Who asks", `agent ${agent}${user === "" ? "" : ` for ${user}`}, session ${show(session)}`)];
  lines.push(line("Asked", `${durationText(nowMs - createdAtMs)} ago`));
  if (joined.length > 0)
    lines.push(line("How often", `${joined.length + 1} identical calls wait; one answer is for all`));
  return lines;
}

function sayAnswers({ approval, nowMs, rates, show }: Ask): CardLine[] {
  const { binding, votes, edit, questions, shown } = approval;
  const lines = [line("Who must say yes", needText(binding.need, nowMs))];
  for (const vote of votes) lines.push(line("Answered", voteText(vote, edit?.argumentsHash, rates)));
  if (edit !== undefined) {
    const before = JSON.parse(shown.argumentsJson) as JsonObject;
    const after = JSON.parse(edit.argumentsJson) as JsonObject;
    for (const change of changesOf(before, after)) lines.push(line(`Changed by ${edit.reviewer}`, show(change)));
  }
  for (const { reviewer, text, answer } of questions) {
    lines.push(line(`${reviewer} asked`, text));
    if (answer !== undefined) lines.push(line("The agent answered", show(answer.text), true));
  }
  return lines;
}

function sayMoney({ approval }: Ask): CardLine[] {
  const { price, budgets } = approval.shown;
  const cost = price.filter(({ unit, value }) => unit !== "calls" || value !== 1n).map(amountText);
  const lines = cost.length === 0 ? [] : [line("Cost", cost.join(", "))];
  for (const { name, scope, subject, unit, limit, available } of budgets) {
    const left = `${amountText({ unit, value: available })} of ${amountText({ unit, value: limit })} left`;
    lines.push(line(`Budget ${name}`, `${left} (${scope} ${subject})`));
  }
  return lines;
}

function saySession({ approval, nowMs, show }: Ask): CardLine[] {
  const { labels, steps, effects } = approval.shown;
  const lines = effects.length === 0 ? [] : [line("What it can do", effects.join(", "))];
  if (labels.length > 0) lines.push(line("The session has touched", labels.map(show).join(", ")));
  const steps_ = steps.map((step) => `${step.tool} ${step.outcome}, ${durationText(nowMs - step.timeMs)} ago`);
  if (steps_.length > 0) lines.push(line("Its last steps", steps_.join("\n")));
  return lines;
}

function line(label: string, text: string, quoted = false): CardLine {
  if (text.length <= FOLD_AT) return { label, text, rest: "", quoted };
  const cut = text.slice(0, FOLD_AT).isWellFormed() ? FOLD_AT : FOLD_AT - 1;
  return { label, text: text.slice(0, cut), rest: text.slice(cut), quoted };
}

/** `{name}` stands for an argument; what is missing stays as it is written. */
function sentenceOf({ binding, shown }: Approval, args: JsonObject, show: (text: string) => string): string {
  if (shown.sentence === "") {
    const [first = ""] = shown.toolDescription.split(/(?<=\.)\s/);
    return `Run ${binding.tool}. ${first}`.trim();
  }
  return shown.sentence.replaceAll(/\{([A-Za-z0-9_]{1,64})\}/g, (whole, name: string) => {
    const value = Object.hasOwn(args, name) ? args[name] : undefined;
    if (value === undefined) return whole;
    const text = show(valueText(name, value)).replaceAll(/\s+/g, " ");
    return text.length <= INLINE ? text : `${text.slice(0, INLINE - 1)}…`;
  });
}

/** The arguments that matter first, then the others, the short ones before the long ones. */
function ordered(args: JsonObject, first: readonly string[]): [string, Json][] {
  const rank = (name: string): number => (first.includes(name) ? first.indexOf(name) : first.length);
  const size = (value: Json): number => JSON.stringify(value).length;
  return Object.entries(args).toSorted(
    ([a, x], [b, y]) => rank(a) - rank(b) || Math.floor(size(x) / FOLD_AT) - Math.floor(size(y) / FOLD_AT),
  );
}

function valueText(name: string, value: Json): string {
  if (typeof value === "number" && name.endsWith("_usd_micros")) return money(BigInt(Math.trunc(value)));
  if (typeof value === "string") return value;
  return JSON.stringify(value, null, typeof value === "object" && value !== null ? 2 : 0);
}

function changesOf(before: JsonObject, after: JsonObject): string[] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].toSorted((a, b) => (a < b ? -1 : 1));
  return names.flatMap((name) => {
    const [was, is] = [before[name], after[name]];
    if (JSON.stringify(was) === JSON.stringify(is)) return [];
    const text = (value: Json | undefined): string => (value === undefined ? "nothing" : valueText(name, value));
    return [`${name}: ${text(was)} → ${text(is)}`];
  });
}

function voteText(vote: Vote, hash: string | undefined, rates: ReadonlyMap<string, number>): string {
  const who = vote.as === "" ? vote.reviewer : `${vote.reviewer} for ${vote.as}`;
  const verb = vote.approve ? "approved" : "rejected";
  const stale = vote.approve && hash !== undefined && vote.argumentsHash !== hash ? " other arguments" : "";
  const comment = vote.comment === "" ? "" : `: ${vote.comment}`;
  const rate = rates.get(placeOf(vote));
  const often = rate === undefined ? "" : `, ${rate} answers within the hour`;
  return `${who} ${verb}${stale}${comment}${vote.hasty ? " (faster than it can be read)" : ""}${often}`;
}

function needText(need: Approval["binding"]["need"], nowMs: number): string {
  const { groups, quorum, confirm, escalateGroup, escalateAtMs } = need;
  const each =
    groups.length === 0
      ? `${quorum} reviewer${quorum === 1 ? "" : "s"}`
      : groups.map((g) => `${quorum} of ${g}`).join(" and ");
  const total = groups.length > 1 ? `, ${seatsOf(need)} people in all` : "";
  const self = confirm ? "; the user it acts for may confirm" : "";
  if (escalateGroup === "") return each + total + self;
  const when = escalateAtMs <= nowMs ? "now also" : `in ${durationText(escalateAtMs - nowMs)} also`;
  return `${each}${total}${self}; ${when} ${escalateGroup}`;
}

export function riskOf({ shown }: Pick<Approval, "shown">): Card["risk"] {
  const { impact, effects, labels } = shown;
  const acts = effects.some((effect) => effect !== "reads");
  if (impact === "high" || effects.includes("irreversible")) return "high";
  if (acts && labels.includes("untrusted-input")) return "high";
  return impact === "medium" || effects.includes("spends") || effects.includes("sends") ? "medium" : "low";
}

export function stateText({ ending, votes, binding }: Approval): string {
  if (ending === undefined) {
    const yeses = votes.filter((vote) => vote.approve).length;
    return yeses === 0 ? "waits for an answer" : `${yeses} of ${seatsOf(binding.need)} have said yes`;
  }
  const by = ending.by.join(" and ");
  switch (ending.end) {
    case "approved":
      return ending.grantId === "" ? `approved by ${by}` : `approved by a grant of ${by}`;
    case "rejected":
      return `rejected by ${by}${ending.reason === "" ? "" : `: ${ending.reason}`}`;
    case "expired":
      return "expired without enough answers, which is a no";
    case "cancelled":
      return `withdrawn: ${ending.reason === "" ? "its call will not run" : ending.reason}`;
  }
}

export function durationText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3_600) return `${Math.round(seconds / 3_600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

import { NAME } from "../shared/names.ts";
import type { Limits, Obligations, Outcome } from "./decide.ts";
import { isMeasure, MEASURES, type Measures, measurePairs, parseMeasure } from "./measures.ts";

export type ObligationsResult =
  | { readonly kind: "ok"; readonly obligations: Obligations }
  | { readonly kind: "refused"; readonly message: string };

const LIMITS: Readonly<Record<string, keyof Limits>> = {
  wall_ms: "wallMs",
  cpu_ms: "cpuMs",
  memory_bytes: "memoryBytes",
  output_bytes: "outputBytes",
  pids: "pids",
};
const APPROVAL = ["approver_group", "approver_groups", "quorum", "ttl", "eyes", "escalate_to", "escalate_after"];
const MAX_QUORUM = 10;
const MAX_GROUPS = 4;
const NAME_RULE = "use 1 to 64 letters, digits, '-' or '_', the first a letter or digit.";
const UNIT_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const MAX_TTL_MS = 30 * 86_400_000;

/** `approver_group=support-leads;quorum=2;ttl=1h;wall_ms=5000`. What is not known is refused, never ignored. */
export function parseObligations(text: string, outcome: Outcome): ObligationsResult {
  if (text === "") return { kind: "ok", obligations: {} };
  if (outcome === "deny") return refused("A deny rule imposes nothing; leave this column empty.");
  const pairs = text.split(";").map((pair) => pair.split("=").map((part) => part.trim()));
  const seen = new Set<string>();
  const measures: { -readonly [K in keyof Measures]: Measures[K] } = {};
  const limits: { -readonly [K in keyof Limits]: Limits[K] } = {};
  const approval: { -readonly [K in keyof Obligations]: Obligations[K] } = {};
  for (const [key = "", value = "", ...more] of pairs) {
    if (more.length > 0 || value === "") return refused(`Write '${[key, value, ...more].join("=")}' as name=value.`);
    if (seen.has(key)) return refused(`${key} is given twice; keep one.`);
    seen.add(key);
    const limit = Object.hasOwn(LIMITS, key) ? LIMITS[key] : undefined;
    if (limit !== undefined) {
      const number = wholeNumber(value, Number.MAX_SAFE_INTEGER);
      if (number === undefined) return refused(`${key}=${value}: give a whole number of at least 1.`);
      limits[limit] = number;
      continue;
    }
    if (isMeasure(key)) {
      const items = parseMeasure(key, value);
      if ("message" in items) return refused(`${key}=${value}: ${items.message}`);
      measures[key] = items;
      continue;
    }
    if (!APPROVAL.includes(key)) {
      return refused(
        `${key} is no obligation; there are ${[...APPROVAL, ...Object.keys(LIMITS), ...MEASURES].join(", ")}.`,
      );
    }
    if (outcome !== "require_approval")
      return refused(`${key} is for require_approval rules; this one says ${outcome}.`);
    const message = setApproval(approval, key, value);
    if (message !== undefined) return refused(`${key}=${value}: ${message}`);
  }
  if (seen.has("approver_group") && seen.has("approver_groups")) {
    return refused("Give approver_group or approver_groups, not both.");
  }
  if (seen.has("escalate_to") !== seen.has("escalate_after")) {
    return refused("escalate_to and escalate_after go together: to whom, and after how long.");
  }
  return { kind: "ok", obligations: { ...measures, ...approval, ...(Object.keys(limits).length > 0 && { limits }) } };
}

/** Returns what is wrong, if anything. */
function setApproval(
  approval: { -readonly [K in keyof Obligations]: Obligations[K] },
  key: string,
  value: string,
): string | undefined {
  switch (key) {
    case "approver_group":
    case "approver_groups": {
      const groups = key === "approver_group" ? [value] : value.split("+").map((group) => group.trim());
      if (!groups.every((group) => NAME.test(group))) return NAME_RULE;
      if (groups.length > MAX_GROUPS) return `name at most ${MAX_GROUPS} groups.`;
      approval.approverGroups = [...new Set(groups)].toSorted((a, b) => (a < b ? -1 : 1));
      return undefined;
    }
    case "quorum": {
      const quorum = wholeNumber(value, MAX_QUORUM);
      if (quorum === undefined) return `give a whole number from 1 to ${MAX_QUORUM}.`;
      approval.quorum = quorum;
      return undefined;
    }
    case "eyes":
      if (value !== "four" && value !== "confirm") return "write four, or confirm where the user themself may answer.";
      approval.confirm = value === "confirm";
      return undefined;
    case "escalate_to":
      if (!NAME.test(value)) return NAME_RULE;
      approval.escalateGroup = value;
      return undefined;
    default: {
      const ms = parseDuration(value);
      if (ms === undefined) return "give a time such as 30s, 15m, 1h or 7d, at most 30d.";
      if (key === "ttl") approval.approvalTtlMs = ms;
      else approval.escalateAfterMs = ms;
      return undefined;
    }
  }
}

function parseDuration(text: string): number | undefined {
  const [, count = "", unit = ""] = /^(\d+)([smhd])$/.exec(text) ?? [];
  const ms = (wholeNumber(count, MAX_TTL_MS) ?? 0) * (UNIT_MS[unit] ?? 0);
  return ms < 1 || ms > MAX_TTL_MS ? undefined : ms;
}

function wholeNumber(text: string, max: number): number | undefined {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : 0;
  return value >= 1 && value <= max ? value : undefined;
}

function refused(message: string): ObligationsResult {
  return { kind: "refused", message };
}

/** As a rule's last column has them. */
export function obligationsText(obligations: Obligations): string {
  return pairsOf(obligations)
    .map(([name, value]) => `${name}=${value}`)
    .join(";");
}

export function namesOfObligations(obligations: Obligations): string[] {
  return pairsOf(obligations).map(([name]) => name);
}

/** Those that whoever has the call run must honour; the others are about who says yes to it. */
export function namesOnRun(obligations: Obligations): string[] {
  return namesOfObligations(obligations).filter((name) => isMeasure(name) || Object.hasOwn(LIMITS, name));
}

function pairsOf(obligations: Obligations): [name: string, value: string][] {
  const { limits, approverGroups = [], quorum, approvalTtlMs, confirm, escalateGroup, escalateAfterMs } = obligations;
  const groups = approverGroups.length === 0 ? undefined : approverGroups.join("+");
  const time = (ms: number | undefined): string | undefined => (ms === undefined ? undefined : `${ms / 1000}s`);
  const all: [string, string | number | undefined][] = [
    [approverGroups.length > 1 ? "approver_groups" : "approver_group", groups],
    ["quorum", quorum],
    ["ttl", time(approvalTtlMs)],
    ["eyes", confirm === undefined ? undefined : confirm ? "confirm" : "four"],
    ["escalate_to", escalateGroup],
    ["escalate_after", time(escalateAfterMs)],
    ...Object.entries(LIMITS).map(([name, key]): [string, number | undefined] => [name, limits?.[key]]),
  ];
  const given = all.flatMap(([name, value]): [string, string][] =>
    value === undefined ? [] : [[name, String(value)]],
  );
  return [...given, ...measurePairs(obligations)];
}

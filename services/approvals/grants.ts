import { canonicalJson, type Json, type JsonObject } from "../shared/json.ts";
import { MASKED } from "../shared/mask.ts";
import { type Approval, type Bound, currentHash, type Grant, type NewApproval } from "./approval.ts";
import { seatsOf } from "./eligibility.ts";
import { likeness } from "./state.ts";

/**
 * Scoped grants: a yes to the next calls of the same session, alike but for numbers within stated bounds, so many, for
 * so long. Pure. A grant never widens who was asked or under which policy, and ends once the session has touched more.
 */

export const MAX_USES = 100;
export const MAX_GRANT_MS = 8 * 3_600_000;
export type Terms = { readonly uses: number; readonly untilMs: number; readonly bounds: readonly Bound[] };

/** What is wrong with the terms, for the person who set them; undefined: nothing. */
export function problemOfTerms(approval: Approval, terms: Terms, nowMs: number): string | undefined {
  const { uses, untilMs, bounds } = terms;
  if (!Number.isInteger(uses) || uses < 1 || uses > MAX_USES) return `give 1 to ${MAX_USES} calls`;
  if (untilMs <= nowMs || untilMs > nowMs + MAX_GRANT_MS)
    return `give a time of up to ${MAX_GRANT_MS / 3_600_000} hours`;
  if (seatsOf(approval.binding.need) > 1) return "more than one person has to answer this, so nobody answers ahead";
  const args = JSON.parse(approval.edit?.argumentsJson ?? approval.shown.argumentsJson) as JsonObject;
  if (bounds.length > 0 && JSON.stringify(args).includes(MASKED)) return "its arguments hold secrets, so none may vary";
  for (const { argument, max } of bounds) {
    const value = Object.hasOwn(args, argument) ? args[argument] : undefined;
    if (typeof value !== "number") return `${argument} is no number among its arguments`;
    if (!Number.isFinite(max) || max < value) return `the bound of ${argument} is below what it is now`;
  }
  return undefined;
}

export function grantOf(approval: Approval, by: string, terms: Terms): Grant {
  const { binding, shown, edit } = approval;
  return {
    grantId: binding.approvalId,
    by,
    binding,
    argumentsJson: edit?.argumentsJson ?? shown.argumentsJson,
    argumentsHash: currentHash(approval),
    bounds: terms.bounds,
    labels: shown.labels,
    uses: terms.uses,
    used: 0,
    untilMs: terms.untilMs,
    revokedBy: "",
  };
}

export function isLive({ used, uses, untilMs, revokedBy }: Grant, nowMs: number): boolean {
  return revokedBy === "" && used < uses && nowMs < untilMs;
}

export function covers(grant: Grant, asked: NewApproval, nowMs: number): boolean {
  const { binding, shown } = asked;
  if (!isLive(grant, nowMs)) return false;
  const same = { ...binding, argumentsHash: grant.binding.argumentsHash };
  if (likeness(same) !== likeness(grant.binding)) return false;
  if (!shown.labels.every((label) => grant.labels.includes(label))) return false;
  return binding.argumentsHash === grant.argumentsHash || isWithin(grant, shown.argumentsJson);
}

function isWithin({ bounds, argumentsJson }: Grant, askedJson: string): boolean {
  if (bounds.length === 0 || argumentsJson.includes(MASKED) || askedJson.includes(MASKED)) return false;
  const granted = JSON.parse(argumentsJson) as Record<string, Json>;
  const asked = JSON.parse(askedJson) as Record<string, Json>;
  for (const { argument, max } of bounds) {
    const value = asked[argument];
    if (typeof value !== "number" || value < 0 || value > max) return false;
    delete granted[argument];
    delete asked[argument];
  }
  return canonicalJson(granted) === canonicalJson(asked);
}

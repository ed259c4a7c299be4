import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { BudgetRevisionSchema, BudgetSchema, FreezeSchema } from "../../proto/interlock/v1/ledger_pb.ts";
import { type Account, figuresAt } from "./account.ts";
import { accountKey, partsOf, type Rule } from "./rules.ts";
import { namedSubject } from "./scope.ts";
import { emptyAt, slotMsOf } from "./signals.ts";
import { type LedgerState, limitOf } from "./state.ts";
import { spanAt, windowText } from "./window.ts";
import { toAuthorship } from "./wire.ts";

/** What operators read: how every budget stands, which revisions there were, what is frozen. */

type Line = MessageInitShape<typeof BudgetSchema>;

/** Of a budget with many subjects, those with the least left are listed. */
export const MAX_LISTED = 1000;
const ANY = "*";

/** One line per budget and subject seen; of a budget for each subject that nobody used yet, one for `*`. */
export function listBudgets(state: LedgerState, nowMs: number): Line[] {
  const seen = Map.groupBy(state.accounts.values(), ({ ruleId }) => ruleId);
  return [...state.rules.byName.values()].flatMap((rule) => {
    const own = namedSubject(rule.scope, state.rules.tenant);
    if (own !== undefined) return [lineOf(state, rule, own, nowMs)];
    const accounts = seen.get(rule.id) ?? [];
    if (accounts.length === 0) return [lineOf(state, rule, ANY, nowMs)];
    const used = accounts.map((account) => {
      const { held, spent } = figuresAt(account, nowMs);
      return { subject: partsOf(account.key).subject, used: held + spent };
    });
    used.sort((a, b) => (a.used === b.used ? 0 : a.used < b.used ? 1 : -1));
    return used.slice(0, MAX_LISTED).map(({ subject }) => lineOf(state, rule, subject, nowMs));
  });
}

/** The budgets that a reservation holds, as they stand with it. */
export function listHeld(state: LedgerState, id: string, nowMs: number): Line[] {
  return (state.holds.get(id)?.accounts ?? []).flatMap(({ key, ruleId }) => {
    const rule = state.rules.byId.get(ruleId);
    return rule === undefined ? [] : [lineOf(state, rule, partsOf(key).subject, nowMs)];
  });
}

function lineOf(state: LedgerState, rule: Rule, subject: string, nowMs: number): Line {
  const key = accountKey(rule, subject);
  const account = state.accounts.get(key);
  const { held, spent, granted } = figuresAt(account, nowMs);
  const limit = limitOf(state, key, rule.id) ?? rule.limit;
  const available = limit + granted - held - spent;
  const raised = state.raised.get(key) ?? state.raised.get(rule.id);
  const refill = refillOf(rule, account, nowMs);
  const slotMs = slotMsOf(rule.window);
  const empty = account && slotMs !== undefined ? emptyAt(account.pace, slotMs, available, nowMs) : undefined;
  return {
    ...{ name: rule.name, scope: dimensionsOf(rule), subject, unit: rule.unit, window: windowText(rule.window) },
    ...{ limit, granted, available, held, spent },
    ...(refill === undefined ? {} : { refillTime: timestampFromMs(refill) }),
    ...(empty === undefined ? {} : { emptyTime: timestampFromMs(empty) }),
    ...(raised === undefined ? {} : { raised: toAuthorship(raised) }),
  };
}

function dimensionsOf({ scope }: Rule): string {
  return scope.length === 0 ? "tenant" : scope.map(({ dimension }) => dimension).join(" & ");
}

/** When the calendar window ends, or the bucket is full again. */
function refillOf({ window }: Rule, account: Account | undefined, nowMs: number): number | undefined {
  switch (window.kind) {
    case "total":
      return undefined;
    case "calendar":
      return spanAt(window.period, window.zone, Math.max(nowMs, account?.sinceMs ?? 0)).endMs;
    case "rolling": {
      if (account === undefined || account.used === 0n || window.refill === 0n) return undefined;
      const fullMs = account.sinceMs + Number((account.used + window.refill - 1n) / window.refill);
      return fullMs > nowMs ? fullMs : undefined;
    }
  }
}

export function listRevisions({ revisions }: LedgerState): MessageInitShape<typeof BudgetRevisionSchema>[] {
  return revisions.toReversed().map(({ revision, budgets, ...author }) => {
    return { revision, budgets, authorship: toAuthorship(author) };
  });
}

export function listFrozen({ frozen }: LedgerState): MessageInitShape<typeof FreezeSchema>[] {
  return [...frozen].map(([selector, author]) => ({ selector, authorship: toAuthorship(author) }));
}

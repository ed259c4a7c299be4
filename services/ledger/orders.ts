import type { Decided } from "../shared/decider.ts";
import { figuresAt, startAt } from "./account.ts";
import { INT64_MAX } from "./amounts.ts";
import { recall } from "./recent.ts";
import { accountKey, type Rule } from "./rules.ts";
import { namedSubject, parseSelector, scopeText, wrongSubject } from "./scope.ts";
import { type Author, type LedgerEvent, type LedgerState, limitOf, type Order, orderText } from "./state.ts";

/** What people decide about budgets: a new revision of the file, a raise, a grant, a freeze. Each with author and reason. */

export type ReviseCommand = {
  readonly kind: "revise";
  /** SHA-256 of what the tenant's budgets say. */
  readonly revision: string;
  readonly tenant: string;
  readonly units: readonly string[];
  readonly rules: readonly Rule[];
  /** Counted from 1; sent in order. The revision is active once the last is here. */
  readonly part: number;
  readonly parts: number;
  readonly author: Author;
  readonly nowMs: number;
};

export type Request =
  /** `subject` undefined: for all of the budget's subjects. */
  | { readonly kind: "raise"; readonly budget: string; readonly subject: string | undefined; readonly limit: bigint }
  /** `subject` undefined: the only one that the budget has. */
  | { readonly kind: "grant"; readonly budget: string; readonly subject: string | undefined; readonly value: bigint }
  | { readonly kind: "freeze"; readonly selector: string }
  | { readonly kind: "thaw"; readonly selector: string };

export type OrderCommand = {
  readonly kind: "order";
  /** The same key with the same request is carried out once. */
  readonly key: string;
  readonly request: Request;
  readonly author: Author;
  readonly nowMs: number;
};

export type OrderRefusal =
  | { readonly kind: "no_budget"; readonly budget: string; readonly known: readonly string[] }
  | { readonly kind: "wrong_subject"; readonly budget: string; readonly message: string }
  | { readonly kind: "wrong_selector"; readonly selector: string }
  | { readonly kind: "not_frozen"; readonly selector: string }
  | { readonly kind: "wrong_value"; readonly field: "limit" | "value"; readonly message: string }
  | { readonly kind: "order_mismatch"; readonly key: string }
  | { readonly kind: "part_missing"; readonly revision: string; readonly part: number };

type Decision = Decided<LedgerEvent, OrderRefusal>;

export function decideRevision(state: LedgerState, command: ReviseCommand): Decision {
  const { kind: _, nowMs: __, ...of } = command;
  if (state.rules.revision === of.revision) return accept();
  const staged = state.staged?.revision === of.revision ? state.staged.parts : 0;
  if (of.part <= staged) return accept();
  if (of.part !== staged + 1) return refuse({ kind: "part_missing", revision: of.revision, part: staged + 1 });
  return accept({ kind: "revised", ...of });
}

export function decideOrder(state: LedgerState, { key, request, author, nowMs }: OrderCommand): Decision {
  const order = orderOf(state, request, nowMs);
  const before = recall(state.orders, key);
  if (before !== undefined) {
    const same = "order" in order && orderText(order.order) === before;
    return same ? accept() : refuse({ kind: "order_mismatch", key });
  }
  if (!("order" in order)) return refuse(order);
  const event: LedgerEvent = { kind: "ordered", key, order: order.order, author };
  if (order.order.kind === "freeze" && state.frozen.has(order.order.selector)) return accept();
  if (order.order.kind === "thaw" && !state.frozen.has(order.order.selector)) {
    return refuse({ kind: "not_frozen", selector: order.order.selector });
  }
  return accept(event);
}

function orderOf(state: LedgerState, request: Request, nowMs: number): { readonly order: Order } | OrderRefusal {
  switch (request.kind) {
    case "freeze":
    case "thaw": {
      const { kind } = request;
      const selector = parseSelector(request.selector);
      const name = selector?.startsWith("budget:") === true ? selector.slice("budget:".length) : undefined;
      if (selector === undefined) return { kind: "wrong_selector", selector: request.selector };
      if (kind === "freeze" && name !== undefined && !state.rules.byName.has(name)) return noBudget(state, name);
      return { order: { kind, selector } };
    }
    case "raise": {
      const { budget, subject, limit } = request;
      const rule = state.rules.byName.get(budget);
      if (rule === undefined) return noBudget(state, budget);
      if (limit < 0n || limit > INT64_MAX) return wrongValue("limit", `give 0 to ${INT64_MAX}`);
      const wrong = subject === undefined ? undefined : wrongSubject(rule.scope, subject, state.rules.tenant);
      if (wrong !== undefined) return { kind: "wrong_subject", budget, message: wrong };
      return { order: { kind: "raise", target: subject === undefined ? rule.id : accountKey(rule, subject), limit } };
    }
    case "grant":
      return grantOf(state, request, nowMs);
  }
}

function grantOf(
  state: LedgerState,
  { budget, subject: asked, value }: Request & { kind: "grant" },
  nowMs: number,
): { readonly order: Order } | OrderRefusal {
  const { rules, accounts } = state;
  const rule = rules.byName.get(budget);
  if (rule === undefined) return noBudget(state, budget);
  const subject = asked ?? namedSubject(rule.scope, rules.tenant);
  if (subject === undefined) {
    const message = `it has one account for each ${scopeText(rule.scope)}; name the one that is meant`;
    return { kind: "wrong_subject", budget, message };
  }
  const wrong = wrongSubject(rule.scope, subject, rules.tenant);
  if (wrong !== undefined) return { kind: "wrong_subject", budget, message: wrong };
  const key = accountKey(rule, subject);
  const { granted } = figuresAt(accounts.get(key), nowMs);
  const limit = limitOf(state, key, rule.id) ?? rule.limit;
  if (value <= 0n) return wrongValue("value", "give a whole number of units above 0; to take away, set a lower limit");
  if (limit + granted + value > INT64_MAX) return wrongValue("value", `with its limit it passes ${INT64_MAX}`);
  return { order: { kind: "grant", account: key, value, startMs: startAt(rule.window, nowMs) } };
}

const MAX_KNOWN = 20;

function noBudget(state: LedgerState, budget: string): OrderRefusal {
  return { kind: "no_budget", budget, known: [...state.rules.byName.keys()].slice(0, MAX_KNOWN) };
}

function wrongValue(field: "limit" | "value", message: string): OrderRefusal {
  return { kind: "wrong_value", field, message };
}

function accept(...events: readonly LedgerEvent[]): Decision {
  return { kind: "accepted", events };
}

function refuse(refusal: OrderRefusal): Decision {
  return { kind: "refused", refusal };
}

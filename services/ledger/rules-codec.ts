import { array, bigint, field, integer, invalid, object, text } from "./json-reader.ts";
import { type Rule, ruleId } from "./rules.ts";
import { parseScope, scopeText } from "./scope.ts";
import type { Author, Order } from "./state.ts";
import { windowFromText, windowText } from "./window.ts";

/** Budgets and what operators order, as JSON. */

export function ruleToJson({ name, scope, unit, window, limit, alerts }: Rule): unknown {
  return { name, scope: scopeText(scope), unit, window: windowText(window), limit: limit.toString(), alerts };
}

export function ruleFromJson(json: unknown): Rule {
  const scope = parseScope(text(field(json, "scope")));
  if (typeof scope === "string") throw invalid("a scope", field(json, "scope"));
  const of = {
    name: text(field(json, "name")),
    scope,
    unit: text(field(json, "unit")),
    window: windowFromText(text(field(json, "window"))),
    limit: bigint(field(json, "limit")),
    alerts: array(field(json, "alerts"), integer),
  };
  return { id: ruleId(of), ...of };
}

export function orderToJson(order: Order): unknown {
  switch (order.kind) {
    case "raise":
      return { ...order, limit: order.limit.toString() };
    case "grant":
      return { ...order, value: order.value.toString() };
    case "freeze":
    case "thaw":
      return order;
  }
}

export function orderFromJson(json: unknown): Order {
  const of = object(json);
  const kind = text(of["kind"]);
  switch (kind) {
    case "raise":
      return { kind, target: text(of["target"]), limit: bigint(of["limit"]) };
    case "grant":
      return { kind, account: text(of["account"]), value: bigint(of["value"]), startMs: integer(of["startMs"]) };
    case "freeze":
    case "thaw":
      return { kind, selector: text(of["selector"]) };
    default:
      throw invalid("an order's kind", kind);
  }
}

export function authorFromJson(json: unknown): Author {
  const of = object(json);
  return { by: text(of["by"]), reason: text(of["reason"]), atMs: integer(of["atMs"]) };
}

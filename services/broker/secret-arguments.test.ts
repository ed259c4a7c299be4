import { expect, test } from "vitest";
import { loadCatalog } from "./catalog.ts";
import { PRINCIPAL } from "./fixture.ts";
import { resolveCall } from "./request.ts";
import { withEdit } from "./secret-arguments.ts";

const catalog = loadCatalog("policies/tools");

function refundOf(amount: number) {
  const argumentsJson = JSON.stringify({ order_id: "ord-1001", amount_usd_micros: amount, reason: "broken" });
  const request = { tool: "orders.refund", argumentsJson, idempotencyKey: "" };
  return resolveCall(request, { principal: PRINCIPAL, catalog, callId: "call-1", nowMs: 1 });
}

test("a call with a reviewer's arguments is the call that the agent would have made with them", () => {
  const { call, tool } = refundOf(45_000_000);
  const wanted = refundOf(30_000_000).call;
  expect(withEdit(call, tool, wanted.argumentsJson, (text) => text)).toEqual(wanted);
  expect(wanted.signature).not.toEqual(call.signature);
});

import { RpcError } from "../shared/rpc/errors.ts";
import type { Exhausted, Refusal } from "./decider.ts";
import { partsOf } from "./rules.ts";

/** What each refusal is to its caller: nothing was changed, and the message says how to mend it. */
export function toRpcError(refusal: Refusal, nowMs: number): RpcError {
  switch (refusal.kind) {
    case "unknown_unit":
      return invalidAmount(refusal.unit, `is no unit; use ${refusal.known.join(", ")}`);
    case "repeated_unit":
      return invalidAmount(refusal.unit, "stands there twice; add them up");
    case "negative_amount":
      return invalidAmount(refusal.unit, `is ${refusal.value}; an amount is at least 0`);
    case "nothing_asked":
      return new RpcError({
        code: "INVALID_ARGUMENT",
        reason: "AMOUNT_ZERO",
        field: "amounts",
        message: "Change amounts: nothing is asked for; reserve at least one unit of something.",
      });
    case "overflow":
      return new RpcError({
        code: "OUT_OF_RANGE",
        reason: "AMOUNT_TOO_LARGE",
        field: "amounts",
        message: `So much ${refusal.unit} cannot be counted: with what is held and spent it passes 2^63-1; send less.`,
        metadata: { unit: refusal.unit },
      });
    case "exhausted":
      return exhausted(refusal, nowMs);
    case "frozen": {
      const { selector, author } = refusal;
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "BUDGET_FROZEN",
        message: `${author.by} froze ${selector} (${author.reason}); ask them to thaw it.`,
        metadata: { selector, author: author.by, since: new Date(author.atMs).toISOString() },
      });
    }
    case "mismatch":
      return new RpcError({
        code: "ALREADY_EXISTS",
        reason: "RESERVATION_MISMATCH",
        field: "amounts",
        message: `Reservation ${refusal.id} is for something else; send the same again, or use a new id.`,
      });
    case "commit_mismatch":
      return new RpcError({
        code: "ALREADY_EXISTS",
        reason: "COMMIT_MISMATCH",
        field: "amounts",
        message: `Reservation ${refusal.id} was committed with other amounts; they stand.`,
        metadata: { ended: "committed" },
      });
    case "ended":
      return ended(refusal);
    case "unknown":
      return new RpcError({
        code: "NOT_FOUND",
        reason: "RESERVATION_NOT_FOUND",
        field: "reservation_id",
        message: `This tenant has no reservation ${refusal.id}; reserve first.`,
      });
    case "lease_over":
      return new RpcError({
        code: "INVALID_ARGUMENT",
        reason: "EXPIRE_TIME_PASSED",
        field: "expire_time",
        message: `Change expire_time: ${new Date(refusal.expiresAtMs).toISOString()} has passed.`,
      });
    default:
      return orderRefused(refusal);
  }
}

type OrderRefused = Extract<
  Refusal,
  {
    kind:
      | "no_budget"
      | "wrong_subject"
      | "wrong_selector"
      | "not_frozen"
      | "wrong_value"
      | "order_mismatch"
      | "part_missing";
  }
>;

function orderRefused(refusal: OrderRefused): RpcError {
  const of = (code: "NOT_FOUND" | "INVALID_ARGUMENT", reason: string, field: string, message: string) =>
    new RpcError({ code, reason, field, message });
  switch (refusal.kind) {
    case "no_budget": {
      const known = refusal.known.length === 0 ? "there is none" : `there are ${refusal.known.join(", ")}`;
      return of("NOT_FOUND", "BUDGET_NOT_FOUND", "budget", `There is no budget ${refusal.budget}; ${known}.`);
    }
    case "wrong_subject":
      return of("INVALID_ARGUMENT", "SUBJECT_INVALID", "subject", `Change subject: ${refusal.message}.`);
    case "wrong_selector": {
      const mend = "use tenant, budget:<name>, or agent:, user:, session:, tool: or group:<name>";
      return of("INVALID_ARGUMENT", "SELECTOR_INVALID", "selector", `Change selector: ${mend}.`);
    }
    case "not_frozen":
      return of("NOT_FOUND", "NOT_FROZEN", "selector", `${refusal.selector} is not frozen.`);
    case "wrong_value":
      return of("INVALID_ARGUMENT", "FIELD_INVALID", refusal.field, `Change ${refusal.field}: ${refusal.message}.`);
    case "order_mismatch":
      return new RpcError({
        code: "ALREADY_EXISTS",
        reason: "KEY_REUSED",
        field: "key",
        message: `Key ${refusal.key} was used for another request; choose a new one.`,
      });
    case "part_missing":
      return new RpcError({
        code: "ABORTED",
        reason: "REVISION_INTERRUPTED",
        message:
          "Another revision of the budgets was put in force at the same time; look at it, and apply yours again.",
        retryAfterMs: 100,
      });
  }
}

function ended({ id, how }: Refusal & { kind: "ended" }): RpcError {
  const mends = {
    committed: "its spend stands; use a new id for a new call",
    released: "nothing was used; use a new id for a new call",
    expired: "its lease is over; commit with `late` what was used all the same, or reserve anew with a new id",
  };
  return new RpcError({
    code: "FAILED_PRECONDITION",
    reason: `RESERVATION_${how.toUpperCase()}`,
    field: "reservation_id",
    message: `Reservation ${id} is ${how}: ${mends[how]}.`,
    metadata: { ended: how },
  });
}

/** A unit can be any text, and only its start is worth repeating. */
function invalidAmount(unit: string, wrong: string): RpcError {
  return new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "AMOUNT_INVALID",
    field: "amounts",
    message: `Change amounts: ${JSON.stringify(unit.slice(0, 64))} ${wrong}.`,
  });
}

function exhausted(refusal: Exhausted, nowMs: number): RpcError {
  const { key, limit, granted, available, asked, refillsAtMs } = refusal;
  const { name, scope, subject, unit, window } = partsOf(key);
  const dimensions = scope.replaceAll(/:[^ ]+/g, "");
  const whose = scope === "tenant" ? `tenant ${subject}` : `${dimensions} ${subject}`;
  const cap = limit + granted;
  const figures = `has ${available} of ${cap} ${unit} left, and ${asked} are asked for`;
  const refills = refillsAtMs === undefined ? undefined : new Date(refillsAtMs).toISOString();
  const mend = refills === undefined ? "ask an operator to raise or grant" : `it refills at ${refills}`;
  return new RpcError({
    code: "RESOURCE_EXHAUSTED",
    reason: "BUDGET_EXHAUSTED",
    message: `Budget ${name} of ${whose} ${figures}; ${mend}.`,
    metadata: {
      ...{ budget: name, scope: dimensions, subject, unit, window, limit: limit.toString() },
      ...{ granted: granted.toString(), available: available.toString(), asked: asked.toString() },
      ...(refills === undefined ? {} : { refills_at: refills }),
    },
    ...(refillsAtMs === undefined ? {} : { retryAfterMs: Math.max(1, refillsAtMs - nowMs) }),
  });
}

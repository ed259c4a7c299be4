import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import type { BudgetSchema, ReserveRequest } from "../../proto/interlock/v1/ledger_pb.ts";
import { parseName, TOOL_NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Amount } from "./amounts.ts";
import type { Spender } from "./budgets.ts";
import type { BudgetInScope, Refusal } from "./decider.ts";
import type { Counter } from "./state.ts";

/** Protobuf to our own types and back, and what each refusal is to its caller. */

export type Reserve = {
  readonly id: string;
  readonly spender: Spender;
  readonly amounts: readonly Amount[];
  readonly expiresAtMs: number;
};

/** @throws RpcError INVALID_ARGUMENT naming the field. */
export function parseReserve(request: ReserveRequest): Reserve {
  const { reservationId, principal, tool, amounts, expireTime } = request;
  const id = parseName("reservation_id", reservationId);
  const tenant = parseName("principal.tenant", principal?.tenant ?? "");
  const agent = parseName("principal.agent", principal?.agent ?? "");
  const session = parseName("principal.session", principal?.session ?? "");
  if (!TOOL_NAME.test(tool)) throw invalid("tool", "use dotted lower-case words, as orders.refund");
  const spender = { tenant, agent, session, tool };
  return { id, spender, amounts: parseAmounts(amounts), expiresAtMs: parseTime("expire_time", expireTime) };
}

/** Without what protobuf adds. The decider says which units and values it takes. */
export function parseAmounts(amounts: readonly Amount[]): readonly Amount[] {
  return amounts.map(({ unit, value }) => ({ unit, value }));
}

/** 9999-12-31T23:59:59Z: the last that a Timestamp may hold. */
const MAX_SECONDS = 253_402_300_799n;

/** @throws RpcError INVALID_ARGUMENT naming the field. */
export function parseTime(field: string, time: Timestamp | undefined): number {
  if (time === undefined) throw invalid(field, "set when the hold ends by itself");
  const { seconds, nanos } = time;
  if (seconds < 0n || seconds > MAX_SECONDS || nanos < 0 || nanos > 999_999_999) {
    throw invalid(field, "use a time between 1970 and 9999");
  }
  return timestampMs(time);
}

function invalid(field: string, mend: string): RpcError {
  const message = `Change ${field}: ${mend}.`;
  return new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field, message });
}

export function toBudget(budget: BudgetInScope, counter: Counter | undefined): MessageInitShape<typeof BudgetSchema> {
  const { budget: name, scope, subject, unit, limit } = budget;
  const { held, spent } = counter ?? { held: 0n, spent: 0n };
  return { name, scope, subject, unit, limit, available: limit - held - spent, held, spent };
}

export function toRpcError(refusal: Refusal): RpcError {
  switch (refusal.kind) {
    case "unknown_unit":
      return invalidAmount(refusal.unit, "is no unit; use usd_micros, calls, cpu_ms, tokens or egress_bytes");
    case "repeated_unit":
      return invalidAmount(refusal.unit, "stands there twice; add them up");
    case "negative_amount":
      return invalidAmount(refusal.unit, `is ${refusal.value}; an amount is at least 0`);
    case "overflow":
      return new RpcError({
        code: "OUT_OF_RANGE",
        reason: "AMOUNT_TOO_LARGE",
        field: "amounts",
        message: `So much ${refusal.unit} cannot be counted: with what is held and spent it passes 2^63-1; send less.`,
        metadata: { unit: refusal.unit },
      });
    case "exhausted":
      return exhausted(refusal);
    case "mismatch":
      return new RpcError({
        code: "ALREADY_EXISTS",
        reason: "RESERVATION_MISMATCH",
        field: "amounts",
        message: `Reservation ${refusal.id} holds other amounts; send the same again, or use a new id.`,
      });
    case "ended":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "RESERVATION_ENDED",
        field: "reservation_id",
        message: `Reservation ${refusal.id} has ended: it is ${refusal.how}; use a new id for a new call.`,
        metadata: { ended: refusal.how },
      });
    case "unknown":
      return new RpcError({
        code: "NOT_FOUND",
        reason: "RESERVATION_NOT_FOUND",
        field: "reservation_id",
        message: `There is no reservation ${refusal.id}; reserve first.`,
      });
    case "lease_over":
      return new RpcError({
        code: "INVALID_ARGUMENT",
        reason: "EXPIRE_TIME_PASSED",
        field: "expire_time",
        message: `Change expire_time: ${new Date(refusal.expiresAtMs).toISOString()} has passed.`,
      });
  }
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

function exhausted({ budget, available, asked }: Refusal & { kind: "exhausted" }): RpcError {
  const { budget: name, scope, subject, unit, limit } = budget;
  const figures = `has ${available} of ${limit} ${unit} left, and ${asked} are asked for`;
  return new RpcError({
    code: "RESOURCE_EXHAUSTED",
    reason: "BUDGET_EXHAUSTED",
    message: `Budget ${name} of ${scope} ${subject} ${figures}; ask an operator to raise its limit in budgets.yaml.`,
    metadata: {
      budget: name,
      scope,
      subject,
      unit,
      limit: limit.toString(),
      available: available.toString(),
      asked: asked.toString(),
    },
  });
}

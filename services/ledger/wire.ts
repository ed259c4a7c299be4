import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { AuthorshipSchema, ReserveRequest } from "../../proto/interlock/v1/ledger_pb.ts";
import type { Principal } from "../../proto/interlock/v1/types_pb.ts";
import { NAME, parseName, TOOL_NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Amount } from "./amounts.ts";
import type { Ancestor } from "./decider.ts";
import type { Spender } from "./scope.ts";
import type { Author } from "./state.ts";

/** Protobuf to our own types and back. */

export type Reserve = {
  readonly tenant: string;
  readonly id: string;
  readonly spender: Spender;
  readonly ancestors: readonly Ancestor[];
  readonly amounts: readonly Amount[];
  readonly expiresAtMs: number;
};

const MAX_ANCESTORS = 64;
const MAX_GROUPS = 16;
const MAX_REASON = 500;
const GROUP_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;

/** @throws RpcError INVALID_ARGUMENT naming the field. */
export function parseReserve(request: ReserveRequest): Reserve {
  const { reservationId, principal, tool, groups, amounts, expireTime, ancestors } = request;
  const id = parseName("reservation_id", reservationId);
  const tenant = parseName("principal.tenant", principal?.tenant ?? "");
  if (groups.length > MAX_GROUPS) throw invalid("groups", `send at most ${MAX_GROUPS}`);
  for (const group of groups)
    if (!GROUP_NAME.test(group)) throw invalid("groups", "use letters, digits, '-', '_', '.'");
  if (ancestors.length > MAX_ANCESTORS) throw invalid("ancestors", `send at most ${MAX_ANCESTORS}`);
  return {
    tenant,
    id,
    spender: parseSpender("principal", principal, "tool", tool, [...new Set(groups)]),
    ancestors: ancestors.map((ancestor, i): Ancestor => {
      const at = `ancestors[${i}]`;
      if (ancestor.principal?.tenant !== tenant) throw invalid(`${at}.principal.tenant`, "it is another tenant's");
      return {
        id: parseName(`${at}.ref.call_id`, ancestor.ref?.callId ?? ""),
        spender: parseSpender(`${at}.principal`, ancestor.principal, `${at}.tool`, ancestor.tool, []),
      };
    }),
    amounts: parseAmounts(amounts),
    expiresAtMs: parseTime("expire_time", expireTime),
  };
}

function parseSpender(
  field: string,
  principal: Principal | undefined,
  toolField: string,
  tool: string,
  groups: readonly string[],
): Spender {
  const user = principal?.user ?? "";
  if (!TOOL_NAME.test(tool)) throw invalid(toolField, "use dotted lower-case words, as orders.refund");
  return {
    agent: parseName(`${field}.agent`, principal?.agent ?? ""),
    user: user === "" ? "" : parseName(`${field}.user`, user),
    session: parseName(`${field}.session`, principal?.session ?? ""),
    tool,
    groups,
  };
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

/** @throws RpcError INVALID_ARGUMENT: nobody changes a budget without saying why. */
export function parseReason(reason: string): string {
  const given = reason.trim();
  if (given === "") throw invalid("reason", "say why; it is for the record");
  if (given.length > MAX_REASON) throw invalid("reason", `use at most ${MAX_REASON} characters`);
  return given;
}

/** @throws RpcError INVALID_ARGUMENT */
export function parseKey(key: string): string {
  if (NAME.test(key)) return key;
  throw invalid(
    "key",
    "send a name of your own for this request, so that it can be sent again without being done twice",
  );
}

export function invalid(field: string, mend: string): RpcError {
  const message = `Change ${field}: ${mend}.`;
  return new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field, message });
}

export function toAuthorship({ by, reason, atMs }: Author): MessageInitShape<typeof AuthorshipSchema> {
  return { author: by, reason, time: timestampFromMs(atMs) };
}

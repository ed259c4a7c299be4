import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Client } from "../shared/rpc/types.ts";
import { askOptions } from "./asking.ts";
import type { Decision } from "./model.ts";
import { serviceDown } from "./refusals.ts";
import type { Work } from "./work.ts";

/** Those whom policy names are told before the call runs. @throws RpcError when one of them cannot be: then it does not. */
export async function giveNotice(
  approvals: Client<typeof ApprovalsService>,
  { call, io }: Work,
  { obligations, reasons, matchedRules }: Decision,
): Promise<void> {
  const { notify } = obligations;
  if (notify === undefined) return;
  const { callId, principal, tool } = call;
  const ref = { session: principal.session, callId };
  const told = { ref, principal, tool, names: [...notify], reasons: [...reasons], rules: [...matchedRules] };
  try {
    await approvals.giveNotice(told, askOptions(io));
  } catch (thrown) {
    const error = RpcError.from(thrown);
    throw error.reason === "NOTICE_FAILED" ? error : serviceDown("approvals", error);
  }
}

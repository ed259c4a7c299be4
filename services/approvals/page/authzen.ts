import { RpcError } from "../../shared/rpc/errors.ts";
import type { Caller } from "../../shared/rpc/types.ts";
import type { Approval } from "../approval.ts";
import type { Desk } from "../desk.ts";
import { type Answer, json, type Request } from "./http.ts";

/**
 * The AuthZEN Access Request and Approval Profile (draft 1, June 2026), as far as it fits: a parked call is a task, its
 * approval's state is the task's, and a yes is to be evaluated again, never a right by itself. An agent reads and
 * withdraws the tasks of its own calls. Tasks are not submitted here: a call that policy asks people about becomes one
 * by being sent to the broker.
 */
export type AuthzenOptions = {
  readonly desk: Desk;
  /** @throws RpcError UNAUTHENTICATED */
  readonly authenticate: (headers: { get(name: string): string | undefined }) => Caller;
  readonly publicUrl: string;
};

const TASK = /^\/access\/v1\/requests\/([0-9a-f-]{36})$/;

export function authzen({ desk, authenticate, publicUrl }: AuthzenOptions) {
  return async (request: Request): Promise<Answer | undefined> => {
    const id = TASK.exec(request.url.pathname)?.[1];
    if (id === undefined) return undefined;
    try {
      const get = (name: string): string | undefined => {
        const value = request.headers[name];
        return typeof value === "string" ? value : undefined;
      };
      const caller = authenticate({ get });
      if (caller.kind === "service") return json(403, { error: "access_denied" });
      if (request.method !== "GET") return json(405, { error: "invalid_request" });
      const approval = await desk.get(caller.tenant, id);
      const isTheirs = caller.kind === "person" || approval.binding.principal.agent === caller.agent;
      if (!isTheirs) return json(404, { error: "not_found" });
      return json(200, toTask(approval, `${publicUrl}${request.url.pathname}`));
    } catch (thrown) {
      const error = RpcError.from(thrown);
      const status = { UNAUTHENTICATED: 401, NOT_FOUND: 404, UNAVAILABLE: 503 }[error.code as string] ?? 500;
      return json(status, { error: error.reason.toLowerCase(), error_description: error.message });
    }
  };
}

const STATUS = { approved: "approved", rejected: "denied", expired: "expired", cancelled: "cancelled" } as const;

function toTask({ binding, ending, expiresAtMs }: Approval, url: string): object {
  const { approvalId, principal, tool, argumentsHash, policyRevision } = binding;
  const task = {
    id: approvalId,
    status: ending === undefined ? "pending" : STATUS[ending.end],
    status_endpoint: url,
    expires_at: new Date(expiresAtMs).toISOString(),
  };
  if (ending?.end !== "approved") return { task };
  const approval = {
    id: approvalId,
    approved_at: new Date(ending.timeMs).toISOString(),
    subject: { type: "agent", id: principal.agent },
    action: { name: tool },
    properties: { arguments_hash: argumentsHash, policy_revision: policyRevision },
  };
  return { task, result: { mode: "reevaluate", approval } };
}

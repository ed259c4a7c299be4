import { parseName } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller } from "../shared/rpc/types.ts";
import type { Person } from "./eligibility.ts";

/** Who may do what. The edge checks it too; whoever reaches a handler another way meets it here. */

/** The name of the service that calls. */
export function requireService(caller: Caller): string {
  if (caller.kind === "service") return caller.name;
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "SERVICES_ONLY",
    message: "Only Interlock's own services ask for, withdraw or follow approvals; answer them with approve or reject.",
  });
}

/** The person who answers, as their credential proves them; never as a request names them. */
export function requireReviewer(caller: Caller, tenant: string): Person & { readonly tenant: string } {
  if (caller.kind === "person" && caller.roles.includes("reviewer")) {
    return { name: caller.name, groups: caller.groups, tenant: tenantOf(caller, tenant) };
  }
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "REVIEWERS_ONLY",
    message: "Only a person with the role reviewer answers approvals; use a reviewer's key.",
  });
}

/** The tenant whose approvals may be read. */
export function requireReader(caller: Caller, tenant: string): string {
  if (caller.kind === "agent") {
    throw new RpcError({
      code: "PERMISSION_DENIED",
      reason: "REVIEWERS_ONLY",
      message: "Only reviewers and operators read approvals; an agent asks for its call instead.",
    });
  }
  return caller.kind === "service" ? parseName("tenant", tenant) : tenantOf(caller, tenant);
}

/** Of another tenant a person learns nothing, not even that it exists. */
function tenantOf(caller: Caller & { readonly kind: "person" }, asked: string): string {
  if (asked === "" || asked === caller.tenant) return caller.tenant;
  throw new RpcError({
    code: "NOT_FOUND",
    reason: "CROSS_TENANT",
    field: "tenant",
    message: "There is no such tenant for you; leave it empty for your own.",
  });
}

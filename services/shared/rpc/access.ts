import { type DescMethod, getOption, hasOption } from "@bufbuild/protobuf";
import { Access, access } from "../../../proto/interlock/v1/access_pb.ts";
import { RpcError } from "./errors.ts";
import { methodName } from "./service.ts";
import type { Caller } from "./types.ts";

/** Whom a method's contract names as its callers; empty: it is for services only. */
export function accessOf(method: DescMethod): readonly Access[] {
  return hasOption(method, access) ? getOption(method, access) : [];
}

/** @throws RpcError PERMISSION_DENIED when the contract does not name such a caller. */
export function admit(method: DescMethod, allowed: readonly Access[], caller: Caller): void {
  if (allowed.some((one) => isNamed(one, caller))) return;
  const whom = allowed.map((one) => WORDS[one as keyof typeof WORDS] ?? "nobody").join(" and ");
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "ACCESS_DENIED",
    message: `${methodName(method)} is for ${whom}; you call as ${nameOf(caller)}. Use the key of one who may.`,
    metadata: { method: methodName(method) },
  });
}

function isNamed(allowed: Access, caller: Caller): boolean {
  switch (allowed) {
    case Access.AGENT:
      return caller.kind === "agent";
    case Access.REVIEWER:
      return caller.kind === "person" && caller.roles.includes("reviewer");
    case Access.OPERATOR:
      return caller.kind === "person" && caller.roles.includes("operator");
    default:
      return false; // a kind of caller that this version does not know is not let in
  }
}

const WORDS = { [Access.AGENT]: "agents", [Access.REVIEWER]: "reviewers", [Access.OPERATOR]: "operators" } as const;

/** For logs and refusals. */
export function nameOf(caller: Caller): string {
  switch (caller.kind) {
    case "agent":
      return `agent ${caller.tenant}/${caller.agent}`;
    case "person":
      return `person ${caller.tenant}/${caller.name} (${caller.roles.join(", ") || "no role"})`;
    case "service":
      return `service ${caller.name}`;
  }
}

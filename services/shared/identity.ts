import type { ApiKey } from "./config.ts";
import { RpcError } from "./rpc/errors.ts";
import type { Caller } from "./rpc/types.ts";
import { hashKey } from "./state-dir.ts";

/** Where a request's credential is read from; names are lower case. */
export type Headers = { get(name: string): string | undefined };

/**
 * Proves who calls, by API key. Keys are held and compared as SHA-256: they carry 256 bits, so a table look-up by hash
 * tells an attacker who measures it nothing that helps to find one.
 */
export function authenticator(keys: readonly ApiKey[]): (headers: Headers) => Caller {
  const callers = new Map(keys.map((key) => [key.sha256, callerOf(key)]));
  return (headers) => {
    const header = headers.get("authorization");
    if (header === undefined) {
      throw new RpcError({
        code: "UNAUTHENTICATED",
        reason: "KEY_MISSING",
        message: "Send your API key as metadata `authorization: Bearer <key>`.",
      });
    }
    const key = /^Bearer (\S{1,512})$/i.exec(header)?.[1];
    const caller = key === undefined ? undefined : callers.get(hashKey(key));
    if (caller === undefined) {
      throw new RpcError({
        code: "UNAUTHENTICATED",
        reason: "KEY_UNKNOWN",
        message: "This API key is not known here. Check that it is whole, and that it belongs to this Interlock.",
      });
    }
    return caller;
  };
}

function callerOf(key: ApiKey): Caller {
  switch (key.kind) {
    case "agent":
      return { kind: "agent", tenant: key.tenant, agent: key.agent };
    case "person":
      return { kind: "person", tenant: key.tenant, name: key.name, roles: key.roles, groups: key.groups };
  }
}

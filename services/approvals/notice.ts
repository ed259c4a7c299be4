import { RpcError } from "../shared/rpc/errors.ts";
import type { Channel } from "./channel.ts";

/** What people are told of a call that is about to run, where a rule says `notify`. */
export type Notice = {
  readonly callId: string;
  readonly principal: {
    readonly tenant: string;
    readonly agent: string;
    readonly session: string;
    readonly user: string;
  };
  readonly tool: string;
  readonly names: readonly string[];
  readonly reasons: readonly string[];
  readonly rules: readonly string[];
};

/** The caller waits meanwhile. */
export const NOTICE_PATIENCE_MS = 2_000;

/**
 * Resolves once every one of the names has been told.
 * @throws RpcError NOTICE_UNKNOWN before anybody is told, when one of them is no webhook; NOTICE_FAILED when one does not take it.
 */
export async function giveNotice(channels: readonly Channel[], notice: Notice): Promise<void> {
  const { tenant } = notice.principal;
  const ways = notice.names.map((name) => {
    const channel = channels.find((one) => one.tenant === tenant && one.name === `webhook:${name}`);
    if (channel?.notice === undefined) throw unknown(name, tenant);
    return { name, tell: channel.notice };
  });
  await Promise.all(
    ways.map(({ name, tell }) =>
      tell(notice).catch((cause: unknown) => {
        throw failed(name, cause);
      }),
    ),
  );
}

function unknown(name: string, tenant: string): RpcError {
  return new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "NOTICE_UNKNOWN",
    message: `Policy wants ${name} to be told, and approvals.webhooks has no ${name} for tenant ${tenant}, so the call did not run. An operator adds it, or takes it out of the rule.`,
    metadata: { name },
  });
}

function failed(name: string, cause: unknown): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: "NOTICE_FAILED",
    message: `Policy wants ${name} to be told, and its webhook did not take it, so the call did not run. Send it again shortly.`,
    metadata: { name },
    retryAfterMs: 1_000,
    cause,
  });
}

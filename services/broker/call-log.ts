import type { Log } from "../shared/log.ts";
import type { Work } from "./work.ts";

/** One line for each call that this process has let go of. */
export function logCall(log: Log, { call, ended }: Work, ms: number): void {
  const outcome = ended?.progress.kind === "ended" ? ended.progress.outcome : undefined;
  const { tenant, agent, session } = call.principal;
  log.info(
    {
      ...{ callId: call.callId, tenant, agent, session, tool: call.tool },
      outcome: outcome?.kind ?? "parked",
      ...(outcome?.kind === "refused" ? { stage: outcome.refusal.stage, reason: outcome.refusal.reason } : {}),
      ms: Math.round(ms * 10) / 10,
    },
    "call",
  );
}

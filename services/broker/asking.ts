import { RpcError } from "../shared/rpc/errors.ts";
import type { CallOptions } from "../shared/rpc/types.ts";
import type { Stage } from "./model.ts";
import { serviceDown } from "./refusals.ts";
import type { CallIo } from "./work.ts";

/** Asking another service on behalf of a call. */

/** How long each of the services that are asked may take. */
const ASK_MS = 2_500;
/** Left of the caller's deadline to name the stage that was too late. */
const NAME_MS = 200;

export function askOptions({ signal, deadlineMs, traceParent }: CallIo): CallOptions & { readonly deadlineMs: number } {
  const own = Date.now() + ASK_MS;
  return {
    signal,
    deadlineMs: deadlineMs === undefined ? own : Math.min(own, Math.max(Date.now() + 1, deadlineMs - NAME_MS)),
    ...(traceParent === undefined ? {} : { traceParent }),
  };
}

/** @throws RpcError that names the service when it does not answer. */
export async function asking<T>(name: "pdp" | "ledger" | "approvals" | "runner", answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw serviceDown(name, RpcError.from(error));
  }
}

/** What went wrong belongs to another stage than the one the call is at. */
export class AtStage extends Error {
  readonly stage: Stage;

  constructor(stage: Stage, cause: unknown) {
    super(`at ${stage}`, { cause });
    this.stage = stage;
  }
}

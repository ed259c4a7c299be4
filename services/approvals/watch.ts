import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WatchResolutionsResponseSchema } from "../../proto/interlock/v1/approvals_pb.ts";
import { type Journal, JournalUnavailable } from "../shared/journal/journal.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { decider } from "./decider.ts";
import { toResolution } from "./wire.ts";

export type WatchOptions = {
  readonly journal: Journal;
  readonly prefix: string;
  /** Aborts when the caller has gone. */
  readonly caller: AbortSignal;
  /** Aborts when the service stops. */
  readonly stopping: AbortSignal;
};

/**
 * Every end after a position, in order, then as they come. An end says all that its watcher needs, so nothing is kept
 * here however many there are, and a watcher that comes back with its last position misses none.
 */
export async function* watchResolutions(
  after: number,
  { journal, prefix, caller, stopping }: WatchOptions,
): AsyncGenerator<MessageInitShape<typeof WatchResolutionsResponseSchema>> {
  try {
    for await (const { body, position } of journal.watch(prefix, after, AbortSignal.any([caller, stopping]))) {
      const event = decider.eventFromJson(JSON.parse(Buffer.from(body).toString("utf8")));
      if (event.kind === "resolved") yield { position: position.toString(), approval: toResolution(event) };
    }
  } catch (error) {
    if (!(error instanceof JournalUnavailable)) throw error;
    throw interrupted("The journal does not answer", error);
  }
  // A stream of all that is to come has no end of its own: one that just ended would pass for a complete answer.
  if (stopping.aborted) throw interrupted("The service is stopping", undefined);
}

function interrupted(why: string, cause: unknown): RpcError {
  return new RpcError({
    code: "UNAVAILABLE",
    reason: cause === undefined ? "SERVICE_STOPPING" : "JOURNAL_UNAVAILABLE",
    message: `${why}; watch again from the last position you were given.`,
    retryAfterMs: 500,
    cause,
  });
}

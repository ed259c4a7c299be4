import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { WatchSignalsResponseSchema } from "../../proto/interlock/v1/ledger_pb.ts";
import { type Journal, JournalUnavailable } from "../shared/journal/journal.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { eventsOf } from "./codec.ts";
import { partsOf } from "./rules.ts";
import type { Signal } from "./signals.ts";

export type WatchOptions = {
  readonly journal: Journal;
  readonly stream: string;
  readonly afterPosition: bigint;
  /** Those of spends from now on. */
  readonly onlyNew: boolean;
  readonly now: () => number;
  /** Aborts when the caller has gone. */
  readonly caller: AbortSignal;
  /** Aborts when the service stops. */
  readonly stopping: AbortSignal;
};

type Answer = MessageInitShape<typeof WatchSignalsResponseSchema>;

/** Every signal after a position, in order, then as they come. A watcher that comes back with its last misses none. */
export async function* watchSignals(options: WatchOptions): AsyncGenerator<Answer> {
  const { journal, stream, afterPosition, onlyNew, now, caller, stopping } = options;
  const sinceMs = onlyNew ? now() : 0;
  try {
    const records = journal.watch(stream, Number(afterPosition), AbortSignal.any([caller, stopping]));
    for await (const record of records) {
      if (record.stream !== stream || record.timeMs < sinceMs) continue;
      for (const event of eventsOf(record.body)) {
        if (event.kind !== "committed") continue;
        const of = { position: BigInt(record.position), reservationId: event.id, time: timestampFromMs(event.atMs) };
        for (const signal of event.signals) yield { ...of, ...toAnswer(signal) };
      }
    }
  } catch (error) {
    if (!(error instanceof JournalUnavailable)) throw error;
    throw interrupted("The journal does not answer", error);
  }
  // A stream of all that is to come has no end of its own: one that just ended would pass for a complete answer.
  if (stopping.aborted) throw interrupted("The service is stopping", undefined);
}

function toAnswer(signal: Signal): Answer {
  const { name, unit, window, scope, subject } = partsOf(signal.account);
  const of: Answer = { kind: signal.kind, budget: name, unit, window, scope: scope.replaceAll(/:[^ ]+/g, ""), subject };
  switch (signal.kind) {
    case "threshold":
      return { ...of, percent: signal.percent };
    case "overrun":
      return { ...of, over: signal.over };
    case "forecast":
      return { ...of, emptyTime: timestampFromMs(signal.emptyAtMs) };
    case "anomaly":
      return { ...of, spent: signal.sum, usual: signal.usual };
  }
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

import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import type { Client } from "../shared/rpc/types.ts";
import { pause } from "./outbox.ts";
import type { Recovery } from "./recovery.ts";

export type ResolutionsOptions = {
  readonly journal: Journal;
  readonly approvals: Client<typeof ApprovalsService>;
  readonly recovery: Recovery;
  readonly log: Log;
};

const CURSOR = "broker.resolutions";
const RETRY_MS = 300;

/**
 * Follows what people answer, from where this or an earlier broker left off, until the signal aborts. At least once:
 * the cursor moves past an answer only when its call has gone on.
 */
export async function followResolutions(options: ResolutionsOptions, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    try {
      await followOnce(options, signal);
    } catch (error) {
      if (!signal.aborted) options.log.warn({ err: error }, "resolutions.lost");
    }
    await pause(RETRY_MS, signal);
  }
}

async function followOnce(options: ResolutionsOptions, signal: AbortSignal): Promise<void> {
  const { journal, approvals, recovery, log } = options;
  const stop = new AbortController();
  const cursor = await journal.readCursor(CURSOR);
  const after = cursor === undefined ? "" : Buffer.from(cursor.state).toString("utf8");
  /** Handed on and not written off, oldest first. */
  const open: { readonly position: string; done: boolean }[] = [];
  const handle = async (item: (typeof open)[number], work: Promise<void>): Promise<void> => {
    try {
      await work;
      item.done = true;
      let last: string | undefined;
      for (let first = open[0]; first?.done === true; first = open[0]) {
        last = first.position;
        open.shift();
      }
      if (last !== undefined) await journal.writeCursor(CURSOR, { position: 0, state: Buffer.from(last) });
    } catch (error) {
      log.error({ err: error, position: item.position }, "call.resume.failed");
      stop.abort(error); // begins again at the cursor, and so at this answer
    }
  };
  for await (const answer of approvals.watchResolutions(
    { after },
    { signal: AbortSignal.any([signal, stop.signal]) },
  )) {
    const item = { position: answer.position, done: false };
    open.push(item);
    void handle(item, recovery.resolve(answer));
  }
}

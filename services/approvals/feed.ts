import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import type { Event } from "./approval.ts";
import { decider } from "./decider.ts";

/** What happens to approvals, on whichever replica, as it is recorded: for live pages and for who tells people. */
export type Happened = { readonly tenant: string; readonly event: Event };

/** Which approval people see differently after it; undefined: none. */
export function changedBy(event: Event): string | undefined {
  switch (event.kind) {
    case "requested":
      return event.approval.binding.approvalId;
    case "joined":
    case "voted":
    case "edited":
    case "asked":
    case "answered":
      return event.approvalId;
    case "resolved":
      return event.binding.approvalId;
    case "granted":
      return event.grant.grantId;
    case "revoked":
      return event.grantId;
    case "absent":
    case "claimed":
    case "told":
      return undefined;
  }
}

export type FeedOptions = { readonly journal: Journal; readonly prefix: string; readonly log: Log };

const CURSOR = "approvals.feed";
const CURSOR_EVERY_MS = 5_000;
const RETRY_MS = 500;

export class Feed implements AsyncDisposable {
  readonly #options: FeedOptions;
  readonly #listeners = new Set<(happened: Happened) => void>();
  readonly #stop = new AbortController();
  #position = 0;
  #running: Promise<void> | undefined;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  /** Only what comes from here on, or shortly before: who listens begins by looking at the state. */
  listen(listener: (happened: Happened) => void): () => void {
    this.#listeners.add(listener);
    this.#running ??= this.#follow();
    return () => this.#listeners.delete(listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #follow(): Promise<void> {
    const { journal, prefix, log } = this.#options;
    const { signal } = this.#stop;
    let writtenMs = performance.now();
    while (!signal.aborted) {
      try {
        if (this.#position === 0) this.#position = (await journal.readCursor(CURSOR))?.position ?? 0;
        for await (const { body, position, stream } of journal.watch(prefix, this.#position, signal)) {
          this.#position = position;
          const event = decider.eventFromJson(JSON.parse(Buffer.from(body).toString("utf8")));
          const tenant = stream.slice(prefix.length);
          for (const listener of this.#listeners) listener({ tenant, event });
          if (performance.now() - writtenMs < CURSOR_EVERY_MS) continue;
          writtenMs = performance.now();
          await journal.writeCursor(CURSOR, { position, state: new Uint8Array() });
        }
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "approvals.feed_lost");
      }
      if (!signal.aborted) await wait(RETRY_MS, signal);
    }
  }
}

function wait(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

import type { Cursor, Journal, Recorded } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import type { Waiters } from "./live.ts";
import { type Outbox, pause } from "./outbox.ts";
import type { Pipeline } from "./pipeline.ts";
import { eventOf } from "./records.ts";
import type { CallPlace, Recovery } from "./recovery.ts";
import type { SessionEvent } from "./session.ts";

/**
 * What the sessions' records say is not finished, as they are written, by whichever broker. It wakes those who wait for
 * a call, carries a wish to cancel to the broker that runs it, and makes good what a broker that died left behind.
 */
export type OpenCallsOptions = {
  readonly journal: Journal;
  readonly pipeline: Pipeline;
  readonly recovery: Recovery;
  readonly waiters: Waiters;
  /** Charges a call that another broker ended: idempotent, and done by whoever is there. */
  readonly charge: (event: Extract<SessionEvent, { kind: "ended" }>) => void;
  readonly outbox: Outbox;
  readonly now: () => number;
  readonly log: Log;
};

type Open = CallPlace &
  (
    | { readonly kind: "parked"; readonly expiresMs: number; readonly seenMs: number; asked: boolean }
    | { readonly kind: "admitted"; readonly deadlineMs: number }
  );

const CURSOR = "broker.open-calls";
const SWEEP_MS = 500;
const CURSOR_EVERY_MS = 5_000;
/** How long the broker that parked or ended a call is left to do what follows. */
const OWNER_FIRST_MS = 3_000;
/** How long an approval's own end is waited for. */
const EXPIRY_SLACK_MS = 15_000;

export class OpenCalls implements AsyncDisposable {
  readonly #options: OpenCallsOptions;
  readonly #stop = new AbortController();
  #open = new Map<string, Open>();
  /** Ended elsewhere; charged again once their owner has had its time. */
  #toCharge: {
    readonly event: Extract<SessionEvent, { kind: "ended" }>;
    readonly atMs: number;
    readonly position: number;
  }[] = [];
  #position = 0;
  /** The next place to write down. */
  #candidate: (Cursor & { readonly atMs: number }) | undefined;
  #running: Promise<unknown> = Promise.resolve();
  /** Calls of this process that are not yet seen here as ended. */
  readonly #mine = new Set<string>();
  readonly #mending = new Set<string>();

  constructor(options: OpenCallsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = Promise.all([this.#follow(), this.#sweep()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #follow(): Promise<void> {
    const { journal, log } = this.#options;
    const { signal } = this.#stop;
    let loaded = false;
    while (!signal.aborted) {
      try {
        if (!loaded) await this.#load();
        loaded = true;
        for await (const record of journal.watch("session.", this.#position, signal)) this.#take(record);
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "open-calls.lost");
      }
      await pause(SWEEP_MS, signal);
    }
  }

  #take(record: Recorded): void {
    this.#position = record.position;
    const { pipeline, waiters } = this.#options;
    const { kind, callId } = headOf(record);
    if (kind === "ended" && this.#mine.delete(callId)) {
      this.#open.delete(callId);
      return; // its own work tells who waits
    }
    const event = eventOf(record);
    // By this attempt, that is: another broker may have been faster, and then nobody here tells of its end.
    if (event.kind === "admitted" && pipeline.live.get(callId)?.attempt === event.attempt) this.#mine.add(callId);
    this.#apply(event, record);
    waiters.notify(callId);
  }

  #apply(event: SessionEvent, record: Recorded): void {
    const { pipeline, now } = this.#options;
    const { callId } = event;
    const [, tenant = "", session = ""] = record.stream.split(".");
    const place = { tenant, session, callId };
    switch (event.kind) {
      case "parked":
        this.#open.set(callId, { ...place, kind: "parked", expiresMs: event.expiresMs, seenMs: now(), asked: false });
        break;
      case "admitted":
        this.#open.set(callId, { ...place, kind: "admitted", deadlineMs: event.deadlineMs });
        break;
      case "ended":
        this.#open.delete(callId);
        if (event.charged.length > 0)
          this.#toCharge.push({ event, atMs: now() + OWNER_FIRST_MS, position: record.position });
        break;
      case "cancelling":
        pipeline.live.get(callId)?.live.cancel(event.reason);
        break;
    }
  }

  async #sweep(): Promise<void> {
    const { signal } = this.#stop;
    let cursorAtMs = performance.now() + CURSOR_EVERY_MS;
    while (!signal.aborted) {
      await pause(SWEEP_MS, signal);
      if (signal.aborted) return;
      this.#chargeDue();
      for (const open of this.#open.values()) void this.#mend(open);
      if (performance.now() < cursorAtMs) continue;
      cursorAtMs = performance.now() + CURSOR_EVERY_MS;
      await this.#writeCursor().catch((error: unknown) => this.#options.log.warn({ err: error }, "cursor.unwritten"));
    }
  }

  #chargeDue(): void {
    const { charge, now } = this.#options;
    const nowMs = now();
    const due = this.#toCharge.filter((item) => item.atMs <= nowMs);
    if (due.length === 0) return;
    this.#toCharge = this.#toCharge.filter((item) => item.atMs > nowMs);
    for (const { event } of due) charge(event);
  }

  /** Whatever fails is tried again by the next sweep. It may take as long as a run does, so none waits for it. */
  async #mend(open: Open): Promise<void> {
    const { pipeline, recovery, now, log } = this.#options;
    if (this.#mending.has(open.callId) || pipeline.live.has(open.callId)) return;
    this.#mending.add(open.callId);
    try {
      switch (open.kind) {
        case "parked":
          if (now() > open.expiresMs + EXPIRY_SLACK_MS) await recovery.expire(open);
          else if (!open.asked && now() > open.seenMs + OWNER_FIRST_MS) {
            await recovery.askAgain(open, open.expiresMs);
            open.asked = true;
          }
          break;
        case "admitted":
          if (now() > open.deadlineMs) await recovery.recoverLost(open);
          break;
      }
    } catch (error) {
      log.warn({ err: error, callId: open.callId }, "call.recover.failed");
    } finally {
      this.#mending.delete(open.callId);
    }
  }

  async #load(): Promise<void> {
    const cursor = await this.#options.journal.readCursor(CURSOR);
    if (cursor === undefined) return;
    this.#position = cursor.position;
    this.#open = new Map(JSON.parse(Buffer.from(cursor.state).toString("utf8")) as [string, Open][]);
    for (const open of this.#open.values()) if (open.kind === "parked") open.asked = false;
  }

  /**
   * A place is written down only once all that was sent before it was taken has arrived: what a crash then loses of the
   * outbox lies behind the cursor and is found again.
   */
  async #writeCursor(): Promise<void> {
    const taken = this.#candidate;
    if (taken !== undefined && !this.#options.outbox.isQuietSince(taken.atMs)) return;
    if (taken !== undefined) await this.#options.journal.writeCursor(CURSOR, taken);
    const first = this.#toCharge[0];
    const position = first === undefined ? this.#position : first.position - 1;
    this.#candidate = { atMs: performance.now(), position, state: Buffer.from(JSON.stringify([...this.#open])) };
  }
}

/** Kind and call id, without parsing what may be a megabyte: both come first in every event of a session. */
function headOf(record: Recorded): { kind: string; callId: string } {
  const head = Buffer.from(record.body.buffer, record.body.byteOffset, Math.min(record.body.length, 160)).toString(
    "latin1",
  );
  const found = /^\{"kind":"([a-z]+)","callId":"([A-Za-z0-9_-]+)"/.exec(head);
  if (found !== null) return { kind: found[1] ?? "", callId: found[2] ?? "" };
  const { kind, callId } = eventOf(record);
  return { kind, callId };
}

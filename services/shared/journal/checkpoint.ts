import { setTimeout as sleep, setImmediate as turn } from "node:timers/promises";
import { z } from "zod";
import type { SignedBytes, Signer } from "../signing.ts";
import { sameHead } from "./chain.ts";
import { Conflict, GENESIS, type Head, type Journal, type Recorded } from "./journal.ts";

/**
 * Signed checkpoints: the hash chain shows that a record was changed, but anybody who can write the file can compute a
 * whole new chain, or cut one short. What a checkpoint names can then no longer be found.
 */
export const CHECKPOINT_STREAM = "checkpoint";

const hashHex = z.string().regex(/^[0-9a-f]{64}$/);

const checkpointSchema = z.strictObject({
  /** Its own place: a checkpoint cannot be moved, nor one before it be left out. */
  seq: z.int().positive(),
  previous: hashHex,
  timeMs: z.int().nonnegative(),
  /** This checkpoint and those before it cover every record up to here. */
  position: z.int().nonnegative(),
  /** The streams that grew since the checkpoint before. */
  heads: z.record(z.string(), z.strictObject({ seq: z.int().positive(), hash: hashHex })),
});

export type Checkpoint = z.infer<typeof checkpointSchema>;

const base64 = z.base64().transform((text) => Buffer.from(text, "base64"));
const signedSchema = z.strictObject({ payload: base64, signature: base64, keyId: z.string() });

/** @throws Error when the body is no checkpoint. The signature is not checked here. */
export function parseCheckpoint(body: Uint8Array): { readonly signed: SignedBytes; readonly checkpoint: Checkpoint } {
  const signed = signedSchema.parse(JSON.parse(Buffer.from(body).toString("utf8")));
  return { signed, checkpoint: checkpointSchema.parse(JSON.parse(signed.payload.toString("utf8"))) };
}

export type CheckpointOptions = {
  readonly journal: Journal;
  readonly everyMs: number;
  readonly signer: Signer;
  readonly now: () => number;
};

/**
 * Writes a checkpoint every `everyMs` if any stream grew, and a last one when disposed. Any number of processes may do
 * so over one journal. A journal that does not answer is tried again at the next turn: no checkpoint stops no service.
 */
export function startCheckpoints(options: CheckpointOptions): AsyncDisposable {
  return new Checkpoints(options);
}

/** Keeps a checkpoint below the largest message that NATS carries. */
const MAX_HEADS = 2_000;
const MAX_TRIES = 5;
const REWATCH_MS = 1_000;
/** How long a stopping process waits to see what was appended just before. */
const LAST_LOOK_MS = 1_000;

class Checkpoints implements AsyncDisposable {
  readonly #options: CheckpointOptions;
  /** Grown and not yet named by a checkpoint; in the order of their positions. */
  readonly #grown = new Map<string, Head & { readonly position: number }>();
  /** Up to where checkpoints cover the journal. */
  #covered = 0;
  #head: Head = GENESIS;
  #seen = 0;
  #onSeen: () => void = () => {};
  readonly #stopTicking = new AbortController();
  readonly #stopWatching = new AbortController();
  readonly #watching: Promise<void>;
  readonly #ticking: Promise<void>;

  constructor(options: CheckpointOptions) {
    this.#options = options;
    this.#watching = this.#watch(this.#stopWatching.signal);
    this.#ticking = this.#tick(this.#stopTicking.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopTicking.abort();
    await this.#ticking;
    await turn(); // records acknowledged before this call have reached the watch
    await this.#writeLast().catch(() => {});
    this.#stopWatching.abort();
    await this.#watching;
  }

  async #tick(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(this.#options.everyMs, undefined, { signal }).catch(() => {});
      if (!signal.aborted) await this.#write().catch(() => {});
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    let loaded = false;
    while (!signal.aborted) {
      try {
        if (!loaded) await this.#load(signal);
        loaded = true;
        for await (const record of this.#options.journal.watch("", this.#seen || this.#covered, signal))
          this.#take(record);
      } catch {
        await sleep(REWATCH_MS, undefined, { signal }).catch(() => {});
      }
    }
  }

  /** Where the checkpoints of earlier processes end. */
  async #load(signal: AbortSignal): Promise<void> {
    const { journal } = this.#options;
    const last = await readCheckpointHead(journal);
    if (last !== undefined && (await holds(journal, last))) {
      this.#head = last;
      this.#covered = last.position;
    }
    await this.#readTail(signal);
  }

  async #readTail(signal?: AbortSignal): Promise<void> {
    for await (const record of this.#options.journal.read(CHECKPOINT_STREAM, this.#head.seq, signal)) {
      this.#takeCheckpoint(record);
    }
  }

  #take(record: Recorded): void {
    const { stream, seq, hash, position } = record;
    if (stream === CHECKPOINT_STREAM) this.#takeCheckpoint(record);
    else if (position > this.#covered) {
      this.#grown.delete(stream);
      this.#grown.set(stream, { seq, hash, position });
    }
    this.#seen = position;
    this.#onSeen();
  }

  #takeCheckpoint({ seq, hash, body }: Recorded): void {
    if (seq <= this.#head.seq) return;
    this.#head = { seq, hash };
    try {
      this.#cover(parseCheckpoint(body).checkpoint.position);
    } catch {
      // It covers nothing. The audit will say what is wrong with it.
    }
  }

  #cover(position: number): void {
    this.#covered = Math.max(this.#covered, position);
    for (const [stream, head] of this.#grown) {
      if (head.position > this.#covered) return;
      this.#grown.delete(stream);
    }
  }

  /** Until no stream is left that has grown. */
  async #write(): Promise<void> {
    const { journal } = this.#options;
    for (let tries = 0; this.#grown.size > 0 && tries < MAX_TRIES; ) {
      const head = this.#head;
      try {
        const { record, position } = await this.#next(head);
        const written = await journal.append(CHECKPOINT_STREAM, head, [record]);
        if (written.seq > this.#head.seq) this.#head = written;
        this.#cover(position);
        tries = 0;
      } catch (error) {
        if (!(error instanceof Conflict)) throw error;
        tries++;
        await this.#readTail();
      }
    }
    await this.#writeCursor();
  }

  async #next(head: Head): Promise<{ record: { timeMs: number; body: Uint8Array }; position: number }> {
    const named = [...this.#grown].slice(0, MAX_HEADS);
    const checkpoint: Checkpoint = {
      seq: head.seq + 1,
      previous: hex(head.hash),
      timeMs: this.#options.now(),
      position: named.at(-1)?.[1].position ?? this.#covered,
      heads: Object.fromEntries(named.map(([stream, { seq, hash }]) => [stream, { seq, hash: hex(hash) }])),
    };
    const { payload, signature, keyId } = await this.#options.signer.sign(
      "checkpoint",
      Buffer.from(JSON.stringify(checkpoint)),
    );
    const signed = { payload: text(payload), signature: text(signature), keyId };
    const record = { timeMs: checkpoint.timeMs, body: Buffer.from(JSON.stringify(signed)) };
    return { record, position: checkpoint.position };
  }

  /** Spares the next process reading all checkpoints. */
  async #writeCursor(): Promise<void> {
    const { seq, hash } = this.#head;
    if (seq === 0) return;
    const state = Buffer.from(JSON.stringify({ seq, hash: hex(hash) }));
    await this.#options.journal.writeCursor(CHECKPOINT_STREAM, { position: this.#covered, state });
  }

  /** Once the watch has delivered our own checkpoint it has delivered all that was appended before it. */
  async #writeLast(): Promise<void> {
    const untilMs = performance.now() + LAST_LOOK_MS;
    const { journal } = this.#options;
    while (this.#grown.size > 0 && performance.now() < untilMs) {
      await this.#write();
      const own = this.#head.seq;
      for await (const { position } of journal.read(CHECKPOINT_STREAM, own - 1)) {
        await this.#untilSeen(position, untilMs);
      }
    }
  }

  async #untilSeen(position: number, untilMs: number): Promise<void> {
    if (this.#seen >= position) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, untilMs - performance.now());
    this.#onSeen = () => {
      if (this.#seen >= position) resolve();
    };
    await promise;
    clearTimeout(timer);
  }
}

const cursorSchema = z.strictObject({ seq: z.int().positive(), hash: hashHex });

/** The last checkpoint of which the journal keeps a note, and what it covers. */
export async function readCheckpointHead(
  journal: Journal,
): Promise<(Head & { readonly position: number }) | undefined> {
  const cursor = await journal.readCursor(CHECKPOINT_STREAM);
  const head = cursor === undefined ? undefined : parseCursorState(cursor.state);
  return cursor === undefined || head === undefined ? undefined : { ...head, position: cursor.position };
}

/** Undefined when it cannot be read: then all checkpoints are read again. */
function parseCursorState(state: Uint8Array): Head | undefined {
  try {
    const { seq, hash } = cursorSchema.parse(JSON.parse(Buffer.from(state).toString("utf8")));
    return { seq, hash: Buffer.from(hash, "hex") };
  } catch {
    return undefined;
  }
}

async function holds(journal: Journal, head: Head): Promise<boolean> {
  for await (const { seq, hash } of journal.read(CHECKPOINT_STREAM, head.seq - 1)) {
    return sameHead({ seq, hash }, head);
  }
  return false;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("base64");
}

import type { KeyObject } from "node:crypto";
import { type Verifier, verifierOf } from "../signing.ts";
import { hashRecord } from "./chain.ts";
import { CHECKPOINT_STREAM, type Checkpoint, parseCheckpoint, readCheckpointHead } from "./checkpoint.ts";
import { GENESIS, type Head, type Journal, JournalUnavailable, type Recorded } from "./journal.ts";

export type Verdict =
  | { readonly kind: "ok"; readonly records: number; readonly streams: number; readonly checkpoints: number }
  | Broken;

/** The first record that is not as it was written. */
export type Broken = {
  readonly kind: "broken";
  readonly stream: string;
  readonly seq: number;
  readonly what: string;
};

/** What a checkpoint says that a stream held. */
type Named = { readonly seq: number; readonly hash: string; readonly checkpoint: number };

/**
 * Walks the whole journal, also while it is being written: every record's hash and place in its chain, every
 * checkpoint's signature, and that what each checkpoint names is still there.
 *
 * Not visible: what happened to records younger than the last checkpoint in the journal. Whoever can drop the last
 * checkpoints with all they name is found out only by a copy of them elsewhere.
 */
export async function verifyJournal(
  journal: Journal,
  options: { readonly publicKeys: readonly KeyObject[] },
): Promise<Verdict> {
  const listed = new Set(await Array.fromAsync(journal.streams("")));
  // Then: what they name was written before them, so it must be there when the other streams are walked.
  const checkpoints = await readCheckpoints(journal, verifierOf(options.publicKeys));
  if (checkpoints.kind === "broken") return checkpoints;
  if (checkpoints.count === 0 && listed.has(CHECKPOINT_STREAM)) return await lost(journal, CHECKPOINT_STREAM);
  const names = listed.union(new Set(checkpoints.named.keys()));
  names.delete(CHECKPOINT_STREAM);
  let records = checkpoints.count;
  for (const stream of [...names].sort((a, b) => (a < b ? -1 : 1))) {
    const walked = await walk(journal, stream, checkpoints.named.get(stream) ?? []);
    if (walked.kind === "broken") return walked;
    if (walked.records === 0 && listed.has(stream)) return await lost(journal, stream);
    records += walked.records;
  }
  const streams = names.size + (checkpoints.count > 0 ? 1 : 0);
  return { kind: "ok", records, streams, checkpoints: checkpoints.count };
}

type Checkpoints = {
  readonly kind: "ok";
  readonly count: number;
  /** By stream, with growing seq. */
  readonly named: ReadonlyMap<string, readonly Named[]>;
};

async function readCheckpoints(journal: Journal, verifier: Verifier): Promise<Checkpoints | Broken> {
  const named = new Map<string, Named[]>();
  const chain = new Chain(CHECKPOINT_STREAM);
  const written = await readCheckpointHead(journal); // before the checkpoints: there may be more by then, never fewer
  for await (const record of legible(journal, CHECKPOINT_STREAM)) {
    if (record instanceof Illegible) {
      return { kind: "broken", stream: CHECKPOINT_STREAM, seq: chain.next, what: record.what };
    }
    const what = chain.add(record) ?? (await checkCheckpoint(record, verifier));
    if (typeof what === "string") return { kind: "broken", stream: CHECKPOINT_STREAM, seq: chain.next, what };
    for (const [stream, head] of Object.entries(what.heads)) {
      const list = named.get(stream);
      const entry = { ...head, checkpoint: record.seq };
      if (list === undefined) named.set(stream, [entry]);
      else list.push(entry);
    }
    chain.advance(record);
  }
  if (written !== undefined && written.seq >= chain.next) {
    const what = `it is missing: checkpoint ${written.seq} has been written`;
    return { kind: "broken", stream: CHECKPOINT_STREAM, seq: chain.next, what };
  }
  for (const list of named.values()) list.sort((a, b) => a.seq - b.seq);
  return { kind: "ok", count: chain.next - 1, named };
}

/** The checkpoint, or what is wrong with it. */
async function checkCheckpoint({ body, seq, prevHash }: Recorded, verifier: Verifier): Promise<Checkpoint | string> {
  let parsed: ReturnType<typeof parseCheckpoint>;
  try {
    parsed = parseCheckpoint(body);
  } catch {
    return "it is no checkpoint";
  }
  const { signed, checkpoint } = parsed;
  const verdict = await verifier.verify("checkpoint", signed);
  switch (verdict) {
    case "unknown key":
      return `it is signed with key ${signed.keyId}, which is not among the trusted keys`;
    case "bad signature":
      return "its signature does not fit: it was changed after it was signed";
    case "ok":
      if (checkpoint.seq === seq && checkpoint.previous === Buffer.from(prevHash).toString("hex")) return checkpoint;
      return `it was signed as record ${checkpoint.seq} after another record: checkpoints before it were taken out or put in`;
  }
}

async function walk(
  journal: Journal,
  stream: string,
  named: readonly Named[],
): Promise<{ readonly kind: "ok"; readonly records: number } | Broken> {
  const chain = new Chain(stream);
  let due = 0;
  for await (const record of legible(journal, stream)) {
    if (record instanceof Illegible) return { kind: "broken", stream, seq: chain.next, what: record.what };
    let what = chain.add(record);
    for (
      let name = named[due];
      what === undefined && name !== undefined && name.seq <= record.seq;
      name = named[++due]
    ) {
      if (Buffer.from(record.hash).toString("hex") !== name.hash) {
        what = `checkpoint ${name.checkpoint} names another record in its place: the stream was rewritten`;
      }
    }
    if (what !== undefined) return { kind: "broken", stream, seq: chain.next, what };
    chain.advance(record);
  }
  const missing = named[due];
  if (missing === undefined) return { kind: "ok", records: chain.next - 1 };
  const what = `it is missing: checkpoint ${missing.checkpoint} names record ${missing.seq} of the stream`;
  return { kind: "broken", stream, seq: chain.next, what };
}

/** How long a journal that has lost track of a stream may deliver nothing, before that is all there is. */
const SILENCE_MS = 2_000;

/** A stream that is listed and reads as empty: what a watch still delivers of it shows from where it is gone. */
async function lost(journal: Journal, stream: string): Promise<Broken> {
  const chain = new Chain(stream);
  const stop = new AbortController();
  const silence = setTimeout(() => stop.abort(), SILENCE_MS);
  try {
    for await (const record of journal.watch(stream, 0, stop.signal)) {
      silence.refresh();
      if (record.stream === stream && chain.add(record) === undefined) chain.advance(record);
    }
  } catch (error) {
    if (error instanceof JournalUnavailable) throw error; // anything else: it ends here
  } finally {
    clearTimeout(silence);
  }
  return { kind: "broken", stream, seq: chain.next, what: "it is missing: the journal has lost it and what followed" };
}

/** In the place of a record: it is there, and is none. */
class Illegible {
  readonly what: string;

  constructor(cause: unknown) {
    this.what = `it cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`;
  }
}

/** A stream's records up to the first that cannot be read. @throws JournalUnavailable */
async function* legible(journal: Journal, stream: string): AsyncGenerator<Recorded | Illegible> {
  try {
    yield* journal.read(stream, 0);
  } catch (error) {
    if (error instanceof JournalUnavailable) throw error;
    yield new Illegible(error);
  }
}

/** One stream's chain as far as it holds. */
class Chain {
  readonly #stream: string;
  #head: Head = GENESIS;
  #position = 0;

  constructor(stream: string) {
    this.#stream = stream;
  }

  /** The number that the next record must have. */
  get next(): number {
    return this.#head.seq + 1;
  }

  /** What is wrong with the record as the next one. */
  add(record: Recorded): string | undefined {
    if (record.seq !== this.next) return `it is missing: record ${record.seq} comes in its place`;
    if (!Number.isSafeInteger(record.timeMs) || record.timeMs < 0) return "its time is no time: it was changed";
    if (Buffer.compare(record.prevHash, this.#head.hash) !== 0)
      return "its prevHash is not the hash of the record before";
    if (record.stream !== this.#stream) return `it belongs to ${record.stream}`;
    if (Buffer.compare(hashRecord(record), record.hash) !== 0) return "its hash does not fit: it was changed";
    if (record.position <= this.#position) return "its position is not after that of the record before";
    return undefined;
  }

  advance(record: Recorded): void {
    this.#head = { seq: record.seq, hash: record.hash };
    this.#position = record.position;
  }
}

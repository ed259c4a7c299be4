/**
 * The journal: append-only, hash-chained per stream; all state is rebuilt from it.
 *
 * Invariants, held by every implementation and by its conformance suite:
 * J1. An acknowledged append is durable (what durable means is the engine's, and is documented).
 * J2. Per stream, seq counts 1, 2, 3 ... without a gap; an append with a stale expectedSeq changes nothing.
 * J3. The records of one append are stored together or not at all.
 * J4. hash(n) covers prevHash = hash(n-1), stream, seq, time and the body's exact bytes.
 * J5. position grows strictly across the whole journal in the order that watch delivers.
 */

/** What a writer hands in. */
export type NewRecord = {
  /** Unix milliseconds. */
  readonly timeMs: number;
  /** UTF-8 JSON, stored byte for byte. */
  readonly body: Uint8Array;
};

export type Recorded = {
  readonly stream: string;
  readonly seq: number;
  /** Place in the whole journal; opaque but ordered. */
  readonly position: number;
  readonly timeMs: number;
  readonly body: Uint8Array;
  /** SHA-256, 32 bytes; zeros before the first record. */
  readonly prevHash: Uint8Array;
  readonly hash: Uint8Array;
};

/** The last record of a stream, which the next append builds on. */
export type Head = { readonly seq: number; readonly hash: Uint8Array };

export type Snapshot = { readonly seq: number; readonly hash: Uint8Array; readonly state: Uint8Array };

/** A consumer's durable place, with whatever it has gathered up to there. */
export type Cursor = { readonly position: number; readonly state: Uint8Array };

/** The stream has moved on: read its tail, decide again. */
export class Conflict extends Error {
  override readonly name = "Conflict";
}

/** The journal cannot be reached, or cannot say whether the append landed. */
export class JournalUnavailable extends Error {
  override readonly name = "JournalUnavailable";
}

export interface Journal extends AsyncDisposable {
  /**
   * Appends all records after `head`, or none. Returns the new head.
   * @throws Conflict when head is not the stream's last record.
   * @throws JournalUnavailable when the append is not known to have landed. The caller reads the tail to learn which:
   *   it compares the records' hashes with those it would have written.
   */
  append(stream: string, head: Head, records: readonly NewRecord[]): Promise<Head>;
  /** The records of one stream after `afterSeq`, in order, to its present end. */
  read(stream: string, afterSeq: number, signal?: AbortSignal): AsyncIterable<Recorded>;
  /**
   * The records of every stream whose name starts with `prefix` after `afterPosition`, in order of position;
   * then live ones as they are appended, until the signal aborts.
   */
  watch(prefix: string, afterPosition: number, signal: AbortSignal): AsyncIterable<Recorded>;
  /** The names of the streams that start with `prefix`, sorted. */
  streams(prefix: string): AsyncIterable<string>;
  readSnapshot(stream: string): Promise<Snapshot | undefined>;
  writeSnapshot(stream: string, snapshot: Snapshot): Promise<void>;
  readCursor(name: string): Promise<Cursor | undefined>;
  writeCursor(name: string, cursor: Cursor): Promise<void>;
}

/** Before the first record. */
export const GENESIS: Head = { seq: 0, hash: new Uint8Array(32) };

/** `kind.tenant[.session]`; each part as checked by parseName. */
export const STREAM_PATTERN = /^[a-z]+(\.[A-Za-z0-9][A-Za-z0-9_-]{0,63}){0,2}$/;

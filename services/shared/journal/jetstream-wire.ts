import { type Chained, HASH_BYTES } from "./chain.ts";
import type { Recorded } from "./journal.ts";

/**
 * One append as one JetStream message, so that its records land together or not at all (J3):
 *
 *     u8 version | u32 count | count x ( u64 seq | u64 timeMs | 32 prevHash | 32 hash | u32 length | body )
 */

const VERSION = 1;
const HEAD_BYTES = 5;
const RECORD_BYTES = 8 + 8 + HASH_BYTES + HASH_BYTES + 4;

/** Records of one append: a record's position is its message's sequence and its place in it. */
export const MAX_RECORDS = 1024;

export function toBatch(records: readonly Chained[]): Uint8Array {
  if (records.length > MAX_RECORDS)
    throw new TypeError(`journal: ${records.length} records in one append; at most ${MAX_RECORDS}`);
  const size = records.reduce((sum, { body }) => sum + RECORD_BYTES + body.length, HEAD_BYTES);
  const bytes = Buffer.allocUnsafe(size);
  bytes.writeUInt8(VERSION, 0);
  let at = bytes.writeUInt32BE(records.length, 1);
  for (const { seq, timeMs, prevHash, hash, body } of records) {
    at = bytes.writeBigUInt64BE(BigInt(seq), at);
    at = bytes.writeBigUInt64BE(BigInt(timeMs), at);
    bytes.set(prevHash, at);
    bytes.set(hash, at + HASH_BYTES);
    at = bytes.writeUInt32BE(body.length, at + 2 * HASH_BYTES);
    bytes.set(body, at);
    at += body.length;
  }
  return bytes;
}

/**
 * The records as far as they can be read, so that what is wrong can be named.
 * @throws Error naming stream and message when it is no batch: it was changed, or somebody else has written here.
 */
export function* fromBatch(stream: string, messageSeq: number, data: Uint8Array): Generator<Recorded, void> {
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  try {
    if (bytes.readUInt8(0) !== VERSION) throw new RangeError("its version is unknown");
    const count = bytes.readUInt32BE(1);
    if (count === 0 || count > MAX_RECORDS) throw new RangeError(`it has ${count} records`);
    let at = HEAD_BYTES;
    for (let i = 0; i < count; i++) {
      const seq = Number(bytes.readBigUInt64BE(at));
      const timeMs = Number(bytes.readBigUInt64BE(at + 8));
      const prevHash = slice(bytes, at + 16, HASH_BYTES);
      const hash = slice(bytes, at + 16 + HASH_BYTES, HASH_BYTES);
      const length = bytes.readUInt32BE(at + RECORD_BYTES - 4);
      const body = slice(bytes, at + RECORD_BYTES, length);
      at += RECORD_BYTES + length;
      yield { stream, seq, position: positionOf(messageSeq, i), timeMs, body, prevHash, hash };
    }
    if (at !== bytes.length) throw new RangeError("it has bytes left over");
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new Error(
      `journal: message ${messageSeq} of ${stream} is no append of ours (${why}); run interlock audit verify`,
      { cause },
    );
  }
}

/** From the beginning, all there are: a record that was changed to be none must be seen. */
export function* after(records: Iterable<Recorded>, seq: number, signal: AbortSignal | undefined): Generator<Recorded> {
  for (const record of records) {
    signal?.throwIfAborted();
    if (seq === 0 || record.seq > seq) yield record;
  }
}

export function readable(
  stream: string,
  { seq, data }: { seq: number; data: Uint8Array },
): readonly Recorded[] | undefined {
  try {
    return [...fromBatch(stream, seq, data)];
  } catch {
    return undefined; // whoever reads it in its turn is told
  }
}

/**
 * Whether these records, a stream's last, are all that come after `seq`. From the beginning on this is not for them to
 * say: only a reader who knows the record before them sees whether they follow it.
 */
export function reachesBack([first]: readonly Recorded[], seq: number): boolean {
  return first !== undefined && seq > 0 && first.seq <= seq + 1;
}

/** Grows strictly in the order of delivery, and is exact up to 2^43 messages. */
export function positionOf(messageSeq: number, index: number): number {
  return messageSeq * MAX_RECORDS + index;
}

export function messageSeqOf(position: number): number {
  return Math.floor(position / MAX_RECORDS);
}

function slice(bytes: Buffer, at: number, length: number): Uint8Array {
  if (at + length > bytes.length) throw new RangeError("it is cut short");
  return bytes.subarray(at, at + length);
}

import { createHash, hash } from "node:crypto";
import { type Head, type NewRecord, STREAM_PATTERN } from "./journal.ts";

/** A record with its place in its stream's chain, before the journal has given it a position. */
export type Chained = {
  readonly seq: number;
  readonly timeMs: number;
  readonly body: Uint8Array;
  readonly prevHash: Uint8Array;
  readonly hash: Uint8Array;
};

export type Hashed = {
  readonly prevHash: Uint8Array;
  readonly stream: string;
  readonly seq: number;
  readonly timeMs: number;
  readonly body: Uint8Array;
};

export const HASH_BYTES = 32;

const DOMAIN = Buffer.from("interlock/journal/v1\0");

/** One buffer for all small records: a one-shot hash of it is twice as fast as a hash object fed piece by piece. */
const scratch = Buffer.alloc(16 * 1024);
DOMAIN.copy(scratch);

/**
 * SHA-256 over: the domain, prevHash, length and bytes of the stream's name, seq, timeMs, length and bytes of the body.
 * Fields are of fixed width or carry their length, so no two records have the same bytes.
 */
export function hashRecord({ prevHash, stream, seq, timeMs, body }: Hashed): Uint8Array {
  if (prevHash.length !== HASH_BYTES) throw new Error(`prevHash has ${prevHash.length} bytes, not ${HASH_BYTES}`);
  if (!Number.isSafeInteger(seq) || seq < 1) throw new Error(`seq ${seq} is no positive integer`);
  if (!Number.isSafeInteger(timeMs) || timeMs < 0) throw new Error(`timeMs ${timeMs} is no time in whole milliseconds`);
  const nameBytes = Buffer.byteLength(stream);
  const headBytes = DOMAIN.length + HASH_BYTES + 4 + nameBytes + 8 + 8 + 4;
  const small = headBytes + body.length <= scratch.length;
  const bytes = small ? scratch : Buffer.alloc(headBytes);
  if (!small) DOMAIN.copy(bytes);
  let at = DOMAIN.length;
  bytes.set(prevHash, at);
  at = bytes.writeUInt32BE(nameBytes, at + HASH_BYTES);
  at += bytes.write(stream, at);
  at = writeInteger(bytes, seq, at);
  at = writeInteger(bytes, timeMs, at);
  at = bytes.writeUInt32BE(body.length, at);
  if (!small) return createHash("sha256").update(bytes).update(body).digest();
  bytes.set(body, at);
  return hash("sha256", bytes.subarray(0, at + body.length), "buffer");
}

/** What to store for `records` appended after `head`. */
export function chainRecords(stream: string, head: Head, records: readonly NewRecord[]): readonly Chained[] {
  let { seq, hash: prevHash } = head;
  return records.map(({ timeMs, body }) => {
    seq += 1;
    const chained = { seq, timeMs, body, prevHash, hash: hashRecord({ prevHash, stream, seq, timeMs, body }) };
    prevHash = chained.hash;
    return chained;
  });
}

/**
 * What every journal asks of an append's arguments before anything is written.
 * @throws TypeError for what only a mistake in a service can cause.
 */
export function checkAppend(stream: string, records: readonly NewRecord[]): void {
  if (!STREAM_PATTERN.test(stream)) throw new TypeError(`journal: ${JSON.stringify(stream)} is no name of a stream`);
  if (records.length === 0) throw new TypeError(`journal: an append to ${stream} has no records`);
  for (const { timeMs, body } of records) {
    if (!Number.isSafeInteger(timeMs) || timeMs < 0) throw new TypeError(`journal: ${stream}: timeMs is ${timeMs}`);
    if (body.length === 0) throw new TypeError(`journal: ${stream}: a record has an empty body`);
  }
}

export function headOf(head: Head, chained: readonly Chained[]): Head {
  const last = chained.at(-1);
  return last === undefined ? head : { seq: last.seq, hash: last.hash };
}

export function sameHead(a: Head, b: Head): boolean {
  return a.seq === b.seq && Buffer.compare(a.hash, b.hash) === 0;
}

/** 64 bits, big-endian; twice as fast as by way of a bigint. */
function writeInteger(bytes: Buffer, value: number, at: number): number {
  bytes.writeUInt32BE(Math.floor(value / 2 ** 32), at);
  return bytes.writeUInt32BE(value % 2 ** 32, at + 4);
}

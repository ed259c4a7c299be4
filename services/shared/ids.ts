import { randomBytes } from "node:crypto";
import { v7 } from "uuid";

/** Random bytes and ids. Drawn from the system many at a time: a call into it costs more than the bytes. */

const POOL_BYTES = 8 << 10;
let pool = Buffer.alloc(0);
let next = 0;

/** Valid until the next call: copy what is to be kept. */
export function drawBytes(count: number): Uint8Array {
  if (next + count > pool.length) {
    pool = randomBytes(POOL_BYTES);
    next = 0;
  }
  next += count;
  return pool.subarray(next - count, next);
}

/** A UUIDv7 (RFC 9562): sorts by the millisecond it was made in, and is never made twice. */
export function newId(): string {
  return v7({ random: drawBytes(16) });
}

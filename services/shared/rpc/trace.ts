import { randomBytes } from "node:crypto";
import type { TraceParent } from "./types.ts";

const TRACE_PARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The caller's trace context where it sent a well-formed one, else the start of a new trace. */
export function traceParentOf(sent: string | undefined): TraceParent {
  if (sent !== undefined && TRACE_PARENT.test(sent)) return sent;
  const id = randomHex();
  return `00-${id.slice(0, 32)}-${id.slice(32)}-01`;
}

/** 24 bytes. Drawn from the system many at a time: a call into it costs more than the bytes. */
function randomHex(): string {
  if (next >= pool.length) {
    pool = randomBytes(24 * 256);
    next = 0;
  }
  next += 24;
  return pool.toString("hex", next - 24, next);
}

let pool = Buffer.alloc(0);
let next = 0;

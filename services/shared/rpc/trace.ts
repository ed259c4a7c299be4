import { drawBytes } from "../ids.ts";
import type { TraceParent } from "./types.ts";

const TRACE_PARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The caller's trace context where it sent a well-formed one, else the start of a new trace. */
export function traceParentOf(sent: string | undefined): TraceParent {
  if (sent !== undefined && TRACE_PARENT.test(sent)) return sent;
  const id = Buffer.from(drawBytes(24)).toString("hex");
  return `00-${id.slice(0, 32)}-${id.slice(32)}-01`;
}

import type { Signature } from "./signature.ts";

/**
 * The last calls of a session, as the loop rules see them. What the rules refused stays in: an agent that asks again
 * has not done anything else, and a cycle of which one call is refused is still a cycle.
 */
export type LoopWindow = readonly Seen[];

export type Seen = Signature & {
  readonly callId: string;
  readonly tool: string;
  /** `open`: it has not ended. `vetoed`: a loop rule refused it. */
  readonly kind: "open" | "done" | "failed" | "vetoed";
  /** Empty until it has ended, and where nothing ran. */
  readonly result: string;
  /** It brought something new: a result the window did not know, or a deed not done before. */
  readonly fresh: boolean;
};

/** So many calls are looked back on: three turns of six calls, of which seven in ten are others. */
export const WINDOW = 64;

export type Ending = {
  readonly kind: "done" | "failed" | "vetoed";
  readonly result: string;
};

export function countOpen(window: LoopWindow, call: Named, signature: Signature): LoopWindow {
  const { callId, tool } = call;
  return push(window, { ...signature, callId, tool, kind: "open", result: "", fresh: true });
}

/** A call that never was open is counted as it ended. */
export function countEnd(window: LoopWindow, call: Named, signature: Signature, ending: Ending): LoopWindow {
  const { callId, tool } = call;
  const others = window.filter((seen) => seen.callId !== callId);
  const isNew = !others.some((seen) => seen.result === ending.result && seen.result !== "");
  const isDeed = signature.effects && ending.kind === "done" && !others.some((seen) => seen.key === signature.key);
  const ended: Seen = { ...signature, callId, tool, ...ending, fresh: isNew || isDeed };
  if (others.length === window.length) return push(window, ended);
  return window.map((seen) => (seen.callId === callId ? ended : seen));
}

/** Takes back what was counted of a call that came to nothing. */
export function uncount(window: LoopWindow, callId: string): LoopWindow {
  return window.filter((seen) => seen.callId !== callId);
}

type Named = { readonly callId: string; readonly tool: string };

function push(window: LoopWindow, seen: Seen): LoopWindow {
  return [...window.slice(1 - WINDOW), seen];
}

/** Exact repeats: the same tool with the same arguments, again and again, in one session. */

/** The last call and how often in a row it was asked for. A veto leaves it as it is, so it cannot end by itself. */
export type RepeatWindow = { readonly signature: string; readonly count: number };

export const NO_REPEATS: RepeatWindow = { signature: "", count: 0 };

export type RepeatVerdict = "clear" | "repeating" | "stopped";

/** The verdict on a call that would come next. At most `limit` equal calls in a row run. */
export function judgeRepeat(window: RepeatWindow, signature: string, limit: number): RepeatVerdict {
  const count = window.signature === signature ? window.count + 1 : 1;
  if (count > limit) return "stopped";
  return count > 1 ? "repeating" : "clear";
}

export function countCall(window: RepeatWindow, signature: string): RepeatWindow {
  return window.signature === signature ? { signature, count: window.count + 1 } : { signature, count: 1 };
}

/** Takes back what was counted of a call that came to nothing. */
export function uncountCall(window: RepeatWindow, signature: string): RepeatWindow {
  return window.signature === signature ? { signature, count: Math.max(0, window.count - 1) } : window;
}

/**
 * What ended lately, by id, in bounded memory. Two generations instead of a queue: nothing is ever searched for what is
 * old, a full generation is dropped whole. By count and not by time, so that a clock that jumps makes nobody forget.
 *
 * An entry is remembered until `KEEP_ENTRIES` others came after it, and never longer than twice that.
 */
export type Recent<T> = { young: Map<string, T>; old: Map<string, T> };

/** So a snapshot stays below some tens of megabytes. */
export const KEEP_ENTRIES = 100_000;

export function noneRecent<T>(): Recent<T> {
  return { young: new Map(), old: new Map() };
}

export function recall<T>(recent: Recent<T>, id: string): T | undefined {
  return recent.young.get(id) ?? recent.old.get(id);
}

export function remember<T>(recent: Recent<T>, id: string, value: T): void {
  if (recent.young.size >= KEEP_ENTRIES) {
    recent.old = recent.young;
    recent.young = new Map();
  }
  recent.young.set(id, value);
}

/**
 * What ended lately, by id, in bounded memory. Two generations instead of a queue: nothing is ever searched for what is
 * old, a full generation is dropped whole.
 *
 * An entry is remembered for at least `KEEP_MS`, unless `KEEP_ENTRIES` others came after it; and never longer than
 * two generations last.
 */
export type Recent<T> = { young: Map<string, T>; old: Map<string, T>; youngSinceMs: number };

export const KEEP_MS = 24 * 3_600_000;
/** So a snapshot stays below a few megabytes. */
export const KEEP_ENTRIES = 20_000;

export function noneRecent<T>(): Recent<T> {
  return { young: new Map(), old: new Map(), youngSinceMs: 0 };
}

export function recall<T>(recent: Recent<T>, id: string): T | undefined {
  return recent.young.get(id) ?? recent.old.get(id);
}

export function remember<T>(recent: Recent<T>, id: string, value: T, nowMs: number): void {
  if (recent.young.size === 0) recent.youngSinceMs = nowMs;
  else if (recent.young.size >= KEEP_ENTRIES || nowMs - recent.youngSinceMs >= KEEP_MS) {
    recent.old = recent.young;
    recent.young = new Map();
    recent.youngSinceMs = nowMs;
  }
  recent.young.set(id, value);
}

export function forget<T>(recent: Recent<T>, id: string): void {
  recent.young.delete(id);
  recent.old.delete(id);
}

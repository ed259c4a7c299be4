/**
 * How fast a budget is spent, in slots of equal length, and what is unusual for it.
 *
 * Unusual is judged by robust statistics over the account's own past slots, so that one outlier does not hide the next:
 * a slot is unusual when its modified z-score, 0.6745 (x - median) / MAD, passes `UNUSUAL` (Iglewicz and Hoaglin, How to
 * Detect and Handle Outliers, 1993; they advise 3.5 for a single look, and we look once every slot). Where more than half
 * of the slots are equal MAD is zero, and their second measure is taken: (x - median) / (1.2533 mean absolute deviation).
 */
export type Pace = {
  /** Number of the slot that `sum` is for; -1 before the first spend. */
  slot: number;
  sum: bigint;
  /** Sums of the slots before it, the latest last; at most KEEP. */
  past: bigint[];
  /** A sum above this is unusual; undefined while there is too little past. */
  alarmAt: bigint | undefined;
  alarmed: boolean;
};

export const KEEP = 48;
/** Of past, before anything is called unusual. */
export const MIN_PAST = 12;
export const UNUSUAL = 6;
const FLAT_TIMES = 4;
const SLOTS_OF_RATE = 4;

export function newPace(): Pace {
  return { slot: -1, sum: 0n, past: [], alarmAt: undefined, alarmed: false };
}

/** The pace once `value` more was spent in `slot`. A slot that is past counts to the present one. */
export function spendAt(pace: Pace, slot: number, value: bigint): Pace {
  if (slot <= pace.slot) return { ...pace, sum: pace.sum + value };
  const past = pace.slot < 0 ? [] : pastWith(pace, slot);
  return { slot, sum: value, past, alarmAt: alarmOf(past), alarmed: false };
}

function pastWith({ past, sum, slot }: Pace, next: number): bigint[] {
  const idle = Math.min(next - slot - 1, KEEP);
  return [...past, sum, ...Array.from({ length: idle }, () => 0n)].slice(-KEEP);
}

/** The largest sum of a slot that is not unusual. */
export function alarmOf(past: readonly bigint[]): bigint | undefined {
  if (past.length < MIN_PAST) return undefined;
  const sums = past.map(Number);
  const middle = medianOf(sums);
  const deviations = sums.map((x) => Math.abs(x - middle));
  const mad = medianOf(deviations);
  const mean = deviations.reduce((sum, x) => sum + x, 0) / deviations.length;
  if (mad > 0) return BigInt(Math.ceil(middle + (UNUSUAL * mad) / 0.6745));
  const active = sums.filter((x) => x > 0);
  if (active.length === 0) return undefined;
  // Mostly idle or always the same: also so many times what is usual when anything is spent.
  return BigInt(Math.ceil(Math.max(middle + UNUSUAL * 1.2533 * mean, FLAT_TIMES * medianOf(active))));
}

/** Units a millisecond over the last slots; undefined while there is no full one. */
export function rateOf({ past }: Pace, slotMs: number): number | undefined {
  const recent = past.slice(-SLOTS_OF_RATE);
  if (recent.length === 0) return undefined;
  return recent.reduce((sum, x) => sum + Number(x), 0) / (recent.length * slotMs);
}

export function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? 0) + upper) / 2;
}

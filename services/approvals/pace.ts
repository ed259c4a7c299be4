import type { Approval } from "./approval.ts";

/**
 * How long a person needs at least to read an approval. Silent reading of prose runs at about 240 words a minute
 * (Brysbaert 2019, "How many words do we read per minute?"), 24 characters a second; who only looks for what matters
 * may be twice as fast, and nobody reads more than the page unfolds.
 */
const SKIM_CHARACTERS_PER_SECOND = 48;
const MOST_READ = 1_500;
const LEAST_MS = 1_500;

export function readingMs({ shown, edit }: Pick<Approval, "shown" | "edit">): number {
  const { sentence, reasons, argumentsJson } = shown;
  const text = [sentence, ...reasons, edit?.argumentsJson ?? argumentsJson].reduce((sum, one) => sum + one.length, 0);
  return Math.max(LEAST_MS, (Math.min(text, MOST_READ) / SKIM_CHARACTERS_PER_SECOND) * 1_000);
}

import { expect, it } from "vitest";
import { forget, KEEP_ENTRIES, KEEP_MS, noneRecent, recall, remember } from "./recent.ts";

it("keeps an entry for at least the time, and not for three times as long", () => {
  const recent = noneRecent<number>();
  remember(recent, "a", 1, 0);
  remember(recent, "b", 2, KEEP_MS - 1);
  remember(recent, "c", 3, KEEP_MS);
  expect([recall(recent, "a"), recall(recent, "b"), recall(recent, "c")]).toEqual([1, 2, 3]);
  remember(recent, "d", 4, 2 * KEEP_MS);
  expect([recall(recent, "a"), recall(recent, "b"), recall(recent, "c")]).toEqual([undefined, undefined, 3]);
});

it("keeps an entry until so many others came, and never more than twice as many", () => {
  const recent = noneRecent<number>();
  for (let i = 0; i < 5 * KEEP_ENTRIES; i++) {
    remember(recent, `r${i}`, i, 0);
    expect(recent.young.size + recent.old.size).toBeLessThanOrEqual(2 * KEEP_ENTRIES);
  }
  const last = 5 * KEEP_ENTRIES - 1;
  expect(recall(recent, `r${last - KEEP_ENTRIES}`)).toBe(last - KEEP_ENTRIES);
  expect(recall(recent, `r${last - 2 * KEEP_ENTRIES}`)).toBeUndefined();
});

it("forgets, wherever it is", () => {
  const recent = noneRecent<number>();
  remember(recent, "old", 1, 0);
  remember(recent, "young", 2, KEEP_MS);
  expect([recent.old.size, recent.young.size]).toEqual([1, 1]);
  for (const id of ["old", "young", "never"]) forget(recent, id);
  expect([recall(recent, "old"), recall(recent, "young")]).toEqual([undefined, undefined]);
});

it("a clock that is set back loses nothing", () => {
  const recent = noneRecent<number>();
  remember(recent, "a", 1, KEEP_MS);
  remember(recent, "b", 2, 0);
  expect([recall(recent, "a"), recall(recent, "b")]).toEqual([1, 2]);
});

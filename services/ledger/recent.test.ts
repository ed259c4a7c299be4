import { expect, it } from "vitest";
import { KEEP_ENTRIES, noneRecent, recall, remember } from "./recent.ts";

it("keeps an entry until so many others came, and never more than twice as many", () => {
  const recent = noneRecent<number>();
  for (let i = 0; i < 5 * KEEP_ENTRIES; i++) {
    remember(recent, `r${i}`, i);
    if (recent.young.size + recent.old.size > 2 * KEEP_ENTRIES) throw new Error(`too many at ${i}`);
  }
  const last = 5 * KEEP_ENTRIES - 1;
  expect(recall(recent, `r${last - KEEP_ENTRIES}`)).toBe(last - KEEP_ENTRIES);
  expect(recall(recent, `r${last - 2 * KEEP_ENTRIES}`)).toBeUndefined();
});

it("says what was remembered last of an id, wherever the earlier word is", () => {
  const recent = noneRecent<string>();
  remember(recent, "a", "expired");
  for (let i = 0; i < KEEP_ENTRIES; i++) remember(recent, `r${i}`, "other");
  expect(recent.old.has("a")).toBe(true);
  remember(recent, "a", "committed");
  expect(recall(recent, "a")).toBe("committed");
});

import { expect, test } from "vitest";
import { drawBytes, newId } from "./ids.ts";

test("ids are UUIDv7, never twice, and sort by when they were made", () => {
  const before = Date.now();
  const ids = Array.from({ length: 5_000 }, newId);
  const after = Date.now();
  expect(new Set(ids).size).toBe(ids.length);
  for (const id of ids) {
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const madeMs = Number.parseInt(id.replace("-", "").slice(0, 12), 16);
    expect(madeMs).toBeGreaterThanOrEqual(before);
    expect(madeMs).toBeLessThanOrEqual(after);
  }
});

test("bytes are drawn once, across the end of what was drawn from the system too", () => {
  const drawn = Array.from({ length: 2_000 }, () => Buffer.from(drawBytes(24)).toString("hex"));
  expect(new Set(drawn).size).toBe(drawn.length);
  for (const hex of drawn) expect(hex).toHaveLength(48);
});

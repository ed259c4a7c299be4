import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { LeaseTimer } from "./leases.ts";

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
});
afterEach(() => {
  vi.useRealTimers();
});

/** Leases by tenant; says when each tenant was asked to end them. */
function setUp(leases: Record<string, number[]>) {
  const asked: string[] = [];
  const failing = new Set<string>();
  const timer = new LeaseTimer({
    expire: async (tenant) => {
      asked.push(`${tenant} at ${Date.now()}`);
      if (failing.delete(tenant)) throw new Error("the journal is gone");
      leases[tenant] = (leases[tenant] ?? []).filter((expiresAtMs) => expiresAtMs > Date.now());
      return leases[tenant].sort((a, b) => a - b)[0];
    },
    onError: (tenant) => asked.push(`${tenant} failed`),
    now: Date.now,
  });
  const noteAll = () => {
    for (const [tenant, ends] of Object.entries(leases)) for (const end of ends) timer.note(tenant, end);
  };
  return { timer, asked, failing, noteAll };
}

it("wakes at each tenant's earliest lease, then at its next", async () => {
  const { asked, noteAll } = setUp({ a: [3000, 1000], b: [2000] });
  noteAll();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(asked).toEqual(["a at 1000", "b at 2000", "a at 3000"]);
  expect(vi.getTimerCount()).toBe(0);
});

it("takes leases that end close together in one go", async () => {
  const { asked, noteAll } = setUp({ a: [1000, 1001, 1020] });
  noteAll();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(asked).toEqual(["a at 1000", "a at 1050"]);
});

it("wakes again after it had nothing to wait for", async () => {
  const { timer, asked } = setUp({});
  timer.note("a", 1000);
  await vi.advanceTimersByTimeAsync(2000);
  timer.note("a", 5000);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(asked).toEqual(["a at 1000", "a at 5000"]);
});

it("wakes earlier for a lease that ends earlier", async () => {
  const { timer, asked } = setUp({ a: [1000], b: [500_000] });
  timer.note("b", 500_000);
  timer.note("a", 1000);
  await vi.advanceTimersByTimeAsync(1000);
  expect(asked).toEqual(["a at 1000"]);
});

it("waits for a lease beyond what one timer can", async () => {
  const farMs = 40 * 24 * 3_600_000; // setTimeout ends at 24.8 days
  const { asked, noteAll } = setUp({ a: [farMs] });
  noteAll();
  await vi.advanceTimersByTimeAsync(farMs - 1);
  expect(asked).toEqual([]);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(asked).toHaveLength(1);
});

it("one tenant's failure is told, is tried again and stops no other", async () => {
  const { asked, failing, noteAll } = setUp({ a: [1000], b: [1000] });
  failing.add("a");
  noteAll();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(asked).toEqual(["a at 1000", "a failed", "b at 1000", "a at 6000"]);
});

it("is still once it is disposed", async () => {
  const { timer, asked, noteAll } = setUp({ a: [1000] });
  noteAll();
  await timer[Symbol.asyncDispose]();
  timer.note("b", 10);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(asked).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

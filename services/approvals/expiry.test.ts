import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { silentLog } from "../shared/log.ts";
import { Expiry } from "./expiry.ts";

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
});
afterEach(() => {
  vi.useRealTimers();
});

/** Streams with the times at which something in them falls due, and a log of what was ended when. */
function timerOver(due: Record<string, number[]>) {
  const ended: [stream: string, atMs: number][] = [];
  const failures: unknown[] = [];
  const expiry = new Expiry({
    streams: async function* () {
      yield* Object.keys(due);
    },
    expire: async (stream) => {
      if (failures.length > 0) throw failures.pop();
      const rest = (due[stream] ?? []).filter((atMs) => atMs > Date.now());
      if (rest.length < (due[stream] ?? []).length) ended.push([stream, Date.now()]);
      due[stream] = rest;
      return rest.length === 0 ? undefined : Math.min(...rest);
    },
    now: Date.now,
    log: silentLog,
  });
  return { expiry, ended, failures };
}

test("what it finds at its start ends in time, stream by stream", async () => {
  const { expiry, ended } = timerOver({ a: [5_000, 100], b: [700] });
  await expiry.start();
  await vi.advanceTimersByTimeAsync(10_000);
  expect(ended).toEqual([
    ["a", 100],
    ["b", 700],
    ["a", 5_000],
  ]);
  await expiry[Symbol.asyncDispose]();
});

test("what is noted later is ended in time, also when it is earlier than all the rest", async () => {
  const due: Record<string, number[]> = { a: [5_000] };
  const { expiry, ended } = timerOver(due);
  await expiry.start();
  due["b"] = [300];
  expiry.note("b", 300);
  await vi.advanceTimersByTimeAsync(400);
  expect(ended).toEqual([["b", 300]]);
  await expiry[Symbol.asyncDispose]();
});

test("what another replica took is found within half a minute", async () => {
  const due: Record<string, number[]> = {};
  const { expiry, ended } = timerOver(due);
  await expiry.start();
  due["theirs"] = [1_000, 45_000];
  await vi.advanceTimersByTimeAsync(60_000);
  expect(ended).toEqual([
    ["theirs", 30_000],
    ["theirs", 45_000],
  ]);
  await expiry[Symbol.asyncDispose]();
});

test("a time a month away does not fire at once", async () => {
  const monthMs = 30 * 24 * 3_600_000;
  const { expiry, ended } = timerOver({ a: [monthMs] });
  await expiry.start();
  await vi.advanceTimersByTimeAsync(120_000);
  expect(ended).toEqual([]);
  vi.setSystemTime(monthMs);
  await vi.advanceTimersByTimeAsync(30_000);
  expect(ended).toHaveLength(1);
  await expiry[Symbol.asyncDispose]();
});

test("after a fault it tries again, calmly, and keeps no other stream waiting", async () => {
  const { expiry, ended, failures } = timerOver({ a: [100], b: [100] });
  await expiry.start();
  failures.push(new Error("the journal does not answer"));
  await vi.advanceTimersByTimeAsync(5_000);
  expect(ended).toEqual([
    ["b", 100],
    ["a", 1_100],
  ]);
  await expiry[Symbol.asyncDispose]();
});

test("a journal that does not answer at the start stops the start", async () => {
  const { expiry, failures } = timerOver({ a: [100] });
  failures.push(new Error("the journal does not answer"));
  await expect(expiry.start()).rejects.toThrow("does not answer");
  expect(vi.getTimerCount()).toBe(0);
});

test("stopped, it ends nothing more, and stopping twice is fine", async () => {
  const { expiry, ended } = timerOver({ a: [100] });
  await expiry.start();
  await expiry[Symbol.asyncDispose]();
  await expiry[Symbol.asyncDispose]();
  expiry.note("a", 100);
  await vi.advanceTimersByTimeAsync(60_000);
  expect(ended).toEqual([]);
  expect(vi.getTimerCount()).toBe(0);
});

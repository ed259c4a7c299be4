import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { silentLog } from "../shared/log.ts";
import { type CodeName, RpcError } from "../shared/rpc/errors.ts";
import { Outbox, pause } from "./outbox.ts";

function fails(code: CodeName): RpcError {
  return new RpcError({ code, reason: code, message: "No." });
}

/** An attempt that fails so often before it succeeds. */
function failing(times: number, error: unknown = fails("UNAVAILABLE")) {
  return vi.fn(async () => {
    if (times-- > 0) throw error;
  });
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("what is sent", () => {
  test("is tried at once and only once when it arrives", async () => {
    await using outbox = new Outbox(silentLog);
    const attempt = failing(0);
    outbox.send("it", attempt);
    expect(attempt).toHaveBeenCalledTimes(1);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(attempt).toHaveBeenCalledTimes(1);
  });

  test.each<CodeName>(["UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "RESOURCE_EXHAUSTED", "UNKNOWN", "INTERNAL"])(
    "is tried again, with growing pauses, while the answer is %s",
    async (code) => {
      await using outbox = new Outbox(silentLog);
      const attempt = failing(10, fails(code));
      outbox.send("it", attempt);
      const tries: number[] = [];
      for (const ms of [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]) {
        await vi.advanceTimersByTimeAsync(ms);
        tries.push(attempt.mock.calls.length);
      }
      expect(tries).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
    },
  );

  test.each<[string, unknown]>([
    ["a refusal", fails("NOT_FOUND")],
    ["another refusal", fails("FAILED_PRECONDITION")],
    ["a fault", new TypeError("a bug")],
    ["what is no error", "oops"],
  ])("is not tried again after %s", async (_, error) => {
    await using outbox = new Outbox(silentLog);
    const attempt = failing(1, error);
    outbox.send("it", attempt);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(attempt).toHaveBeenCalledTimes(1);
  });

  test("does not hold up what is sent after it", async () => {
    await using outbox = new Outbox(silentLog);
    const [stuck, next] = [failing(3), failing(0)];
    outbox.send("stuck", stuck);
    outbox.send("next", next);
    await vi.advanceTimersByTimeAsync(0);
    expect([stuck.mock.calls.length, next.mock.calls.length]).toEqual([1, 1]);
  });
});

describe("whether it is quiet", () => {
  test("only what was sent before that time counts, until it has arrived", async () => {
    await using outbox = new Outbox(silentLog);
    expect(outbox.isQuietSince(performance.now())).toBe(true);
    const before = performance.now();
    await vi.advanceTimersByTimeAsync(1);
    outbox.send("it", failing(1));
    await vi.advanceTimersByTimeAsync(1);
    const after = performance.now();
    expect([outbox.isQuietSince(before), outbox.isQuietSince(after)]).toEqual([true, false]);
    outbox.send("another", failing(0));
    await vi.advanceTimersByTimeAsync(10);
    expect(outbox.isQuietSince(after)).toBe(false);
    await vi.advanceTimersByTimeAsync(100);
    expect(outbox.isQuietSince(after)).toBe(true);
  });
});

describe("when it stops", () => {
  test("what is under way ends, and what would have to wait is tried once more and given up", async () => {
    const outbox = new Outbox(silentLog);
    const underWay = Promise.withResolvers<void>();
    const stuck = failing(100);
    outbox.send("under way", () => underWay.promise);
    outbox.send("stuck", stuck);
    await vi.advanceTimersByTimeAsync(0);
    let stopped = false;
    const stopping = outbox[Symbol.asyncDispose]().then(() => (stopped = true));
    await vi.advanceTimersByTimeAsync(60_000);
    expect([stopped, stuck.mock.calls.length]).toEqual([false, 2]);
    underWay.resolve();
    await stopping;
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("a pause", () => {
  test("ends by itself, or early and without an error when the signal aborts, and leaves nothing behind", async () => {
    const stop = new AbortController();
    const whole = pause(1_000, stop.signal);
    await vi.advanceTimersByTimeAsync(1_000);
    await whole;
    const early = pause(1_000, stop.signal);
    stop.abort();
    await early;
    await pause(1_000, stop.signal);
    expect(vi.getTimerCount()).toBe(0);
  });
});

import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import { NOW_MS } from "./fixture.ts";
import { LiveCall, type ProgressEvent, Waiters } from "./live.ts";

const NEVER = new AbortController().signal;

describe("a live call", () => {
  const newCall = () => new LiveCall("call-1", () => NOW_MS);

  function shown(events: readonly ProgressEvent[]): string[] {
    return events.map((event) => (event.kind === "stage" ? `at ${event.stage}${event.note}` : event.text));
  }

  test("tells a late listener what has happened, then what happens, until it stops listening", () => {
    const call = newCall();
    const events: ProgressEvent[] = [];
    call.enter("guard");
    call.output(false, "one");
    const stop = call.listen((event) => events.push(event));
    call.output(true, "two");
    call.enter("run", " again");
    stop();
    call.output(false, "three");
    expect(shown(events)).toEqual(["at guard", "one", "two", "at run again"]);
    expect(events[2]).toEqual({ kind: "output", timeMs: NOW_MS, stderr: true, text: "two" });
  });

  test("every listener hears everything", () => {
    const call = newCall();
    const heard: ProgressEvent[][] = [[], []];
    for (const events of heard) call.listen((event) => events.push(event));
    call.output(false, "one");
    expect(heard.map(shown)).toEqual([["one"], ["one"]]);
  });

  test("keeps a bounded part of the output for late listeners, and all of it for those who are there", () => {
    const call = newCall();
    const [early, late]: [ProgressEvent[], ProgressEvent[]] = [[], []];
    call.listen((event) => early.push(event));
    const chunk = "x".repeat(10 << 10);
    for (let i = 0; i < 100; i++) call.output(false, chunk);
    call.enter("filter");
    call.listen((event) => late.push(event));
    expect(early).toHaveLength(101);
    expect(late).toHaveLength(7); // 64 KiB of chunks, and the stage
    expect(late.at(-1)).toMatchObject({ stage: "filter" });
  });

  test("is cancelled once, for the first reason", () => {
    const call = newCall();
    call.cancel("first");
    call.cancel("second");
    expect(call.cancelled.reason).toMatchObject({ code: "CANCELLED", message: "first" });
  });
});

describe("waiters", () => {
  test("all who wait for the call are woken, and nobody else", async () => {
    const waiters = new Waiters();
    const woken: string[] = [];
    const waits = ["a", "a", "b"].map((id, i) => waiters.next(id, NEVER).then(() => woken.push(`${id}${i}`)));
    waiters.notify("a");
    await Promise.all(waits.slice(0, 2));
    expect(woken).toEqual(["a0", "a1"]);
    waiters.notify("b");
    await waits[2];
  });

  test("a notice is for those who wait at that time", async () => {
    const waiters = new Waiters();
    const stop = new AbortController();
    waiters.notify("a");
    const late = waiters.next("a", stop.signal);
    stop.abort(new Error("enough"));
    await expect(late).rejects.toThrow("enough");
  });

  test("one who waits with a signal that is over does not wait", async () => {
    await expect(new Waiters().next("a", AbortSignal.abort(new Error("over")))).rejects.toThrow("over");
  });

  test("nothing is left on the signal of one who was woken", async () => {
    const waiters = new Waiters();
    const { signal } = new AbortController();
    const wait = waiters.next("a", signal);
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    waiters.notify("a");
    await wait;
    expect(getEventListeners(signal, "abort")).toHaveLength(0);
  });

  test("one may wait again while being woken, for the next time", async () => {
    const waiters = new Waiters();
    let times = 0;
    const wait = async (): Promise<void> => {
      for (; times < 3; times++) {
        const next = waiters.next("a", NEVER);
        queueMicrotask(() => waiters.notify("a"));
        await next;
      }
    };
    await wait();
    expect(times).toBe(3);
  });
});

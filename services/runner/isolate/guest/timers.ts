import { coarse } from "./clock.ts";
import { err } from "./console.ts";
import { apply, define, floor, max, outside } from "./host.ts";

// Timers: kept here in order of time, with one alarm outside for the first of them.
type Timer = { id: number; at: number; every: number; run: () => void };
const MAX_TIMERS = 1000;
let timers: Timer[] = [];
let lastTimer = 0;
const add = (timer: Timer): void => {
  let i = timers.length;
  while (i > 0 && (timers[i - 1] as Timer).at > timer.at) i--;
  timers = [...timers.slice(0, i), timer, ...timers.slice(i)];
};
const arm = (): void => {
  const first = timers[0];
  if (first !== undefined) outside().wake(max(1, first.at - coarse()));
};
const set = (repeats: boolean, run: unknown, ms: unknown, args: unknown[]): number => {
  if (typeof run !== "function") throw new TypeError("A timer needs a function.");
  if (timers.length >= MAX_TIMERS) throw new RangeError(`At most ${MAX_TIMERS} timers at once.`);
  const wait = max(1, floor(Number(ms) || 0));
  const id = ++lastTimer;
  add({ id, at: coarse() + wait, every: repeats ? wait : 0, run: () => apply(run as () => void, undefined, args) });
  arm();
  return id;
};
const clear = (id: unknown): void => {
  timers = timers.filter((timer) => timer.id !== id);
};
export const tick = (): void => {
  const until = coarse();
  try {
    for (let due = timers[0]; due !== undefined && due.at <= until; due = timers[0]) {
      timers = timers.slice(1);
      if (due.every > 0) add({ ...due, at: until + due.every });
      due.run();
    }
  } catch (thrown) {
    err("A timer threw:", thrown);
  } finally {
    arm();
  }
};
define("setTimeout", (run: unknown, ms: unknown, ...args: unknown[]) => set(false, run, ms, args));
define("setInterval", (run: unknown, ms: unknown, ...args: unknown[]) => set(true, run, ms, args));
define("clearTimeout", clear);
define("clearInterval", clear);
const resolved = Promise.resolve();
define("queueMicrotask", (run: () => void) => void resolved.then(run));

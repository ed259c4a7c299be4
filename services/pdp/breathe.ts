import { setImmediate } from "node:timers/promises";

/** So long a turn of the event loop may take while a revision is built: decisions wait no longer for it. */
const TURN_MS = 5;

let turnBegan = performance.now();

/** Lets what waits have its turn once this one has lasted long enough; between, it costs a look at the clock. */
export async function breathe(): Promise<void> {
  if (performance.now() - turnBegan < TURN_MS) return;
  await setImmediate();
  turnBegan = performance.now();
}

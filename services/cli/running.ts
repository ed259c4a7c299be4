import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";

/** Who runs on a state directory, and where it listens: written by `up` once it listens, and gone when it stops. */

const record = z.object({ pid: z.int().min(1), address: z.string() });
export type RunningRecord = z.output<typeof record>;

export const DEFAULT_ADDRESS = "127.0.0.1:7443";

function runningFile(state: string): string {
  return join(state, "running.json");
}

/** Writes the record of this process; it is removed when the result is disposed. */
export function recordRunning(state: string, address: string): Disposable {
  const file = runningFile(state);
  writeFileSync(file, JSON.stringify({ pid: process.pid, address }), { mode: 0o600 });
  return {
    [Symbol.dispose]: () => {
      if (readRunning(state)?.pid === process.pid) rmSync(file, { force: true });
    },
  };
}

/** The recorded process, if it is alive and still ours: ids are used again after a reboot. */
export function readRunning(state: string): RunningRecord | undefined {
  try {
    const found = record.parse(JSON.parse(readFileSync(runningFile(state), "utf8")));
    const commandLine = readFileSync(`/proc/${found.pid}/cmdline`, "utf8");
    return commandLine.includes("cli/main.ts") ? found : undefined;
  } catch {
    return undefined;
  }
}

/** Where to look for an Interlock: where the one of this state directory listens, if there is one. */
export function addressOf(given: string | undefined, state: string): string {
  return given ?? process.env["INTERLOCK_ADDRESS"] ?? readRunning(state)?.address ?? DEFAULT_ADDRESS;
}

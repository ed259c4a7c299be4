import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { CliError, EXIT } from "./exit.ts";
import { printable } from "./print.ts";
import { type RunningRecord, readRunning } from "./running.ts";

/** `up --detach` and `down`: an Interlock that goes on when the terminal has moved on. */

/** Long enough for a machine that is busy with something else. */
const PATIENCE_MS = 60_000;
const LOOK_AGAIN_MS = 25;

export type Detached = RunningRecord & { readonly log: string; readonly started: boolean };

/**
 * Starts `up` in the background and returns once it listens; one that runs already is left as it is.
 * @throws CliError when it does not start, with what it said.
 */
export async function startDetached(state: string, wanted: string | undefined): Promise<Detached> {
  const log = join(state, "interlock.log");
  const running = readRunning(state);
  if (running !== undefined) {
    if (wanted === undefined || wanted === running.address) return { ...running, log, started: false };
    throw new CliError(
      `Interlock runs on ${state} already, and listens on ${running.address} (process ${running.pid}). Stop it first: interlock --state ${state} down`,
    );
  }
  mkdirSync(state, { recursive: true, mode: 0o700 });
  const file = openSync(log, "a", 0o600);
  const begin = fstatSync(file).size;
  const child = spawnUp(file);
  closeSync(file);
  const record = await untilListening(child, state);
  if (record === undefined) throw new CliError(`it did not start.\n${lastWords(log, begin)}`, EXIT.unavailable);
  child.unref();
  return { ...record, log, started: true };
}

function spawnUp(log: number): ChildProcess {
  const script = process.argv[1];
  if (script === undefined) throw new Error("the process has no script");
  // Its words go to a log that people read.
  const args = process.argv.slice(2).filter((arg) => !["--detach", "-d", "--json"].includes(arg));
  return spawn(process.execPath, [...process.execArgv, script, ...args], {
    detached: true,
    stdio: ["ignore", log, log],
  });
}

/** The record that the child itself writes; undefined when it ended, or was ended for taking too long. */
async function untilListening(child: ChildProcess, state: string): Promise<RunningRecord | undefined> {
  let ended = false;
  child.once("exit", () => (ended = true));
  child.once("error", () => (ended = true));
  const deadline = Date.now() + PATIENCE_MS;
  while (!ended && Date.now() < deadline) {
    const record = readRunning(state);
    if (record !== undefined && record.pid === child.pid) return record;
    await pause();
  }
  child.kill("SIGKILL");
  return undefined;
}

/** What it said itself, without the service log's lines. */
function lastWords(log: string, begin: number): string {
  const lines = readFileSync(log).subarray(begin).toString("utf8").trimEnd().split("\n");
  const said = lines.filter((line) => !line.startsWith('{"level"')).slice(-10);
  return printable(said.length > 0 ? said.join("\n") : `It said nothing; see ${log}.`);
}

/** Stops what runs on this state directory and waits until it is gone; undefined when nothing does. */
export async function stopRunning(state: string): Promise<RunningRecord | undefined> {
  const running = readRunning(state);
  if (running === undefined) return undefined;
  process.kill(running.pid, "SIGTERM");
  const deadline = Date.now() + PATIENCE_MS;
  while (isAlive(running.pid)) {
    if (Date.now() > deadline) {
      throw new CliError(`process ${running.pid} has not stopped within ${PATIENCE_MS / 1000} s.`, EXIT.unavailable);
    }
    await pause();
  }
  return running;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
}

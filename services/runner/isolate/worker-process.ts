import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { Confinement } from "./confine.ts";
import { FrameReader, toFrame } from "./frames.ts";
import { type FromWorker, parseFromWorker, type ToWorker } from "./messages.ts";

/** The largest message that a worker may send: a result, an output or an error at their limits. */
const MAX_FRAME_BYTES = 8 << 20;
/** Linux counts CPU time for /proc in hundredths of a second, whatever the kernel's own tick. */
const TICKS_PER_MS = 1 / 10;

/** How a worker process ended. */
export type WorkerEnd = { readonly signal: string | null; readonly why: string };

/**
 * One worker process as the runner sees it: something that may have been taken over by the program it ran. What it says
 * is parsed, and whatever does not belong ends it.
 */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #reader = new FrameReader(MAX_FRAME_BYTES);
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended: Promise<WorkerEnd>;
  #why = "";
  #isReady = false;
  #onMessage: ((message: FromWorker) => void) | undefined;
  /** Whose programs it has run: nobody else's ever run in it. */
  tenant: string | undefined;
  runs = 0;

  constructor({ argv: [command, ...args] }: Confinement) {
    this.#child = spawn(command, args, { env: {}, cwd: "/", stdio: ["pipe", "pipe", "ignore"] });
    this.#ready.promise.catch(() => {}); // who waits is told; a spare worker that never starts is not waited for
    this.#child.on("error", (error) => this.kill(`it could not be started: ${error.message}`));
    this.#child.stdin?.on("error", () => {}); // a worker that has died reads nothing; its end says so
    this.#child.stdout?.on("data", (chunk: Buffer) => this.#take(chunk));
    this.#ended = once(this.#child, "close").then(
      ([, signal]) => this.#end(signal as string | null),
      () => this.#end(null),
    );
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get isAlive(): boolean {
    return this.#why === "" && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Waits for a program, and has an isolate made for it. */
  get isReady(): boolean {
    return this.#isReady && this.isAlive;
  }

  get ended(): Promise<WorkerEnd> {
    return this.#ended;
  }

  /** Rejects when it ends first. */
  ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Runs one program; `onMessage` hears all that it says until it is ready again. */
  send(message: ToWorker, onMessage: (message: FromWorker) => void): void {
    this.#onMessage = onMessage;
    this.#isReady = false;
    this.runs++;
    this.#child.stdin?.write(toFrame(message));
  }

  /** SIGKILL: the only thing that ends every program. */
  kill(why: string): void {
    if (this.#why === "") this.#why = why;
    this.#child.kill("SIGKILL");
  }

  /** CPU time that the whole process has used, ms; undefined once it is gone. */
  cpuMs(): number | undefined {
    const stat = this.#proc("stat");
    // After the command's name, which may hold anything: state is field 3, utime and stime are 14 and 15.
    const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields === undefined ? undefined : (Number(fields[11]) + Number(fields[12])) / TICKS_PER_MS;
  }

  /** Memory it holds now, bytes. */
  residentBytes(): number | undefined {
    const pages = this.#proc("statm")?.split(" ")[1];
    return pages === undefined ? undefined : Number(pages) * 4096;
  }

  #proc(file: string): string | undefined {
    try {
      return readFileSync(`/proc/${this.#child.pid}/${file}`, "utf8");
    } catch {
      return undefined;
    }
  }

  #take(chunk: Buffer): void {
    if (this.#why !== "") return;
    try {
      for (const each of this.#reader.push(chunk)) {
        const message = parseFromWorker(each);
        if (message.kind !== "ready") this.#onMessage?.(message);
        else {
          this.#isReady = true;
          this.#ready.resolve();
          const tell = this.#onMessage;
          this.#onMessage = undefined;
          tell?.(message);
        }
      }
    } catch (error) {
      this.kill(`it sent ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  #end(signal: string | null): WorkerEnd {
    const why = this.#why === "" ? `it ended by itself (${signal ?? `exit code ${this.#child.exitCode}`})` : this.#why;
    this.#why = why;
    this.#ready.reject(new Error(`an isolate worker did not start: ${why}`));
    return { signal, why };
  }
}

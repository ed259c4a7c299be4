import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type Confinement, startConfined } from "./confine.ts";
import { FrameReader, toFrame } from "./frames.ts";
import { type FromWorker, parseFromWorker, type ToWorker } from "./messages.ts";

/** The largest message that a worker may send: the tail of an output, 2 MiB of characters that JSON writes as six bytes. */
const MAX_FRAME_BYTES = 13 << 20;
const MAX_WHY_CHARS = 512;
/** Linux counts CPU time for /proc in hundredths of a second, whatever the kernel's own tick. */
const TICKS_PER_MS = 1 / 10;

/** bwrap says by its exit code which signal ended what it ran. */
const SIGNALS: Readonly<Record<number, string>> = {
  132: "SIGILL",
  133: "SIGTRAP",
  134: "SIGABRT",
  135: "SIGBUS",
  137: "SIGKILL",
  139: "SIGSEGV",
};

/** How a worker process ended. */
export type WorkerEnd = { readonly signal: string | null; readonly why: string };

/** What a worker says while it runs a program. */
export type FromRun = Exclude<FromWorker, { kind: "ready" }>;
/** The last of it. */
export type Answer = Exclude<FromRun, { kind: "output" | "ask" | "fetch" }>;

/**
 * One worker process as the runner sees it: something that may have been taken over by the program it ran. What it says
 * is parsed, and whatever does not belong, or comes out of turn, ends it. Its turns: ready; then, for each program,
 * output, one answer, and ready again.
 */
export class WorkerProcess {
  readonly #child: ChildProcess;
  readonly #reader = new FrameReader(MAX_FRAME_BYTES);
  readonly #ready = Promise.withResolvers<void>();
  readonly #ended: Promise<WorkerEnd>;
  #why = "";
  /** The process that holds the isolates: bwrap stands before it. Known once it is ready. */
  #inner: number | undefined;
  /** What it may say next. */
  #turn: "ready" | "answer" | "nothing" = "ready";
  #run:
    | { readonly id: number; readonly onMessage: (message: FromRun) => void; readonly onReady: () => void }
    | undefined;
  /** Whose programs it has run: nobody else's ever run in it. */
  tenant: string | undefined;
  runs = 0;

  constructor({ argv, filter }: Confinement) {
    this.#child = startConfined(argv, filter, "ignore");
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
    return this.#turn === "nothing" && this.isAlive;
  }

  get ended(): Promise<WorkerEnd> {
    return this.#ended;
  }

  /** Rejects when it ends first. */
  ready(): Promise<void> {
    return this.#ready.promise;
  }

  /** Runs one program: `onMessage` hears its output and its one answer. Resolves once it is ready for another. */
  send(message: Extract<ToWorker, { kind: "run" }>, onMessage: (message: FromRun) => void): Promise<void> {
    const ready = Promise.withResolvers<void>();
    this.#run = { id: message.run, onMessage, onReady: ready.resolve };
    this.#turn = "answer";
    this.runs++;
    this.#child.stdin?.write(toFrame(message));
    return ready.promise;
  }

  /** The answer to what its program asked. */
  reply(run: number, id: number, json: string): void {
    if (this.#run?.id === run && this.isAlive) this.#child.stdin?.write(toFrame({ kind: "reply", run, id, json }));
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

  /** Memory it holds now, bytes, without what is mapped from files. */
  residentBytes(): number | undefined {
    const kilobytes = /^RssAnon:\s+(\d+) kB$/m.exec(this.#proc("status") ?? "")?.[1];
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
  }

  #proc(file: string): string | undefined {
    try {
      return readFileSync(`/proc/${this.#inner}/${file}`, "utf8");
    } catch {
      return undefined;
    }
  }

  #take(chunk: Buffer): void {
    if (this.#why !== "") return;
    try {
      for (const message of this.#reader.push(chunk)) this.#hear(parseFromWorker(message));
    } catch (error) {
      const what = error instanceof Error ? error.message : String(error);
      this.kill(`it sent ${what.slice(0, MAX_WHY_CHARS)}`);
    }
  }

  /** @throws Error when it is not the worker's turn to say this. */
  #hear(message: FromWorker): void {
    if (message.kind === "ready") {
      if (this.#turn !== "ready") throw new Error("ready out of turn");
      this.#turn = "nothing";
      this.#inner ??= innermost(this.#child.pid);
      this.#ready.resolve();
      this.#run?.onReady();
      this.#run = undefined;
      return;
    }
    if (this.#turn !== "answer") throw new Error(`${message.kind} out of turn`);
    if (message.run !== this.#run?.id) throw new Error(`${message.kind} of a run that is not its own`);
    if (message.kind !== "output" && message.kind !== "ask" && message.kind !== "fetch") this.#turn = "ready";
    this.#run.onMessage(message);
  }

  #end(byKernel: string | null): WorkerEnd {
    const signal = byKernel ?? SIGNALS[this.#child.exitCode ?? 0] ?? null;
    const why = this.#why === "" ? `it ended by itself (${signal ?? `exit code ${this.#child.exitCode}`})` : this.#why;
    this.#why = why;
    this.#ready.reject(new Error(`an isolate worker did not start: ${why}`));
    return { signal, why };
  }
}

/** The process at the end of the line of only children that begins with this one. */
function innermost(pid: number | undefined): number | undefined {
  try {
    const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
    return child === undefined || child === "" ? pid : innermost(Number(child));
  } catch {
    return pid; // it has ended, or this kernel does not say
  }
}

import type { Duplex } from "node:stream";
import type Docker from "dockerode";
import type { RunCgroup } from "./cgroup.ts";
import { type Container, createOptions } from "./create.ts";
import { answered, createFault, lostFault, statusOf } from "./faults.ts";
import { FrameParser } from "./frames.ts";
import {
  type Answer,
  AnswerParser,
  type Entry,
  type Exit,
  getRequest,
  type HarnessRun,
  listRequest,
  PROTOCOL_VERSION,
  putRequests,
  runRequest,
  signalRequest,
  stdinRequests,
} from "./harness.ts";
import { engineMeter, type Meter } from "./meter.ts";

/** How long a started harness may take for its first word: what is slower is not worth waiting for. */
const HELLO_MS = 20_000;
/** What is read of one sandbox in a tenth of a second: a flood must not take the runner from its neighbours. */
const BURST_BYTES = 4 << 20;
const BURST_MS = 100;
const MAX_ENTRIES = 10_000;
/** What a kernel of the sandbox's own, gVisor's, takes beside the program: measured, and rounded up. */
const KERNEL_BYTES = 64 << 20;
const KERNEL_TASKS = 96;
const SIGKILL = 9;

/** Why a sandbox is no more. */
export type Gone = { readonly kind: "ended" } | { readonly kind: "broke the protocol"; readonly how: string };

export type Started = {
  /** Settles once the program, and in a call's sandbox all it left behind, is dead; rejects when the sandbox is. */
  readonly exit: Promise<Exit>;
  /** The program alone; the sandbox goes on. */
  kill(): void;
};

/** An operation on files that did not go through: an errno of Linux. */
export class FileFault extends Error {
  readonly errno: number;
  constructor(errno: number) {
    super(`errno ${errno}`);
    this.errno = errno;
  }
}

/** The sandbox is no more, and with it what was under way. */
export class SandboxGone extends Error {}

/**
 * One container with a harness that has answered. Everything that comes out of it is hostile: what does not fit what
 * was asked for ends it.
 */
export class Sandbox implements AsyncDisposable {
  readonly name: string;
  readonly meter: Meter;
  readonly cgroup: RunCgroup | undefined;
  readonly egressFolder: string | undefined;
  readonly #container: Docker.Container;
  /** Where the runtime sets up none. */
  readonly #bounds: Pick<Container, "memoryBytes" | "pids"> | undefined;
  readonly #hello = Promise.withResolvers<void>();
  readonly #gone = Promise.withResolvers<Gone>();
  readonly #pending = new Map<number, Pending>();
  #stream: Duplex | undefined;
  #greeted = false;
  #over = false;
  #lastId = 0;
  #burst = 0;
  #burstTimer: NodeJS.Timeout | undefined;
  #removed: Promise<void> | undefined;

  private constructor(container: Docker.Container, about: Container, cgroup: RunCgroup | undefined) {
    this.name = about.name;
    this.egressFolder = about.egressFolder;
    this.#bounds = about.adopt ? about : undefined;
    this.#container = container;
    this.cgroup = cgroup;
    this.meter = cgroup ?? engineMeter(container);
    this.#hello.promise.catch(() => {});
  }

  /** @throws RpcError FAILED_PRECONDITION; then nothing is left of it. */
  static async start(
    docker: Docker,
    container: Container,
    cgroup: RunCgroup | undefined,
    image: string,
  ): Promise<Sandbox> {
    const sandbox = new Sandbox(docker.getContainer(container.name), container, cgroup);
    try {
      await answered(docker.createContainer(createOptions(container)));
      await sandbox.#open();
      return sandbox;
    } catch (error) {
      await sandbox[Symbol.asyncDispose]();
      throw createFault(error, image);
    }
  }

  async #open(): Promise<void> {
    const container = this.#container;
    // Before the start, so that nothing is missed.
    const stream = (await answered(
      container.attach({ stream: true, hijack: true, stdin: true, stdout: true, stderr: true }),
    )) as Duplex;
    this.#stream = stream;
    const answers = new AnswerParser((answer) => this.#take(answer));
    // The harness says nothing on stderr; what comes there is of a program that got hold of it.
    const frames = new FrameParser((from, bytes) => {
      if (from === "stdout") answers.write(bytes);
    });
    stream.on("data", (chunk: Buffer) => this.#read(frames, chunk));
    stream.on("error", () => {});
    stream.on("close", () => this.#end({ kind: "ended" }));
    stream.on("end", () => this.#end({ kind: "ended" }));
    await answered(container.start());
    if (this.#bounds !== undefined) await this.#adopt(this.#bounds);
    const late = setTimeout(() => this.#end({ kind: "ended" }), HELLO_MS);
    try {
      await this.#hello.promise;
    } finally {
      clearTimeout(late);
    }
  }

  async #adopt(bounds: { readonly memoryBytes: number; readonly pids: number }): Promise<void> {
    const { State } = await answered(this.#container.inspect());
    await this.cgroup?.adopt(State.Pid, {
      memoryBytes: bounds.memoryBytes + KERNEL_BYTES,
      pids: bounds.pids + KERNEL_TASKS,
    });
  }

  get alive(): boolean {
    return this.#greeted && !this.#over;
  }

  get gone(): Promise<Gone> {
    return this.#gone.promise;
  }

  /** @throws SandboxGone when it is. Output goes to `onBytes` as it comes, before the exit. */
  start(run: HarnessRun, stdin: string, onBytes: (stream: "stdout" | "stderr", bytes: Buffer) => void): Started {
    const exited = Promise.withResolvers<Exit>();
    exited.promise.catch(() => {});
    const id = this.#begin({
      take: (answer) => {
        if (answer.kind === "stdout" || answer.kind === "stderr") {
          onBytes(answer.kind, answer.bytes);
          return "more";
        }
        if (answer.kind === "exit") exited.resolve(answer.exit);
        else if (answer.kind === "failed") exited.reject(new FileFault(answer.errno));
        else return "wrong";
        return "done";
      },
      fail: exited.reject,
    });
    this.#send(runRequest(id, run));
    for (const request of stdinRequests(id, stdin)) this.#send(request);
    return { exit: exited.promise, kill: () => this.#send(signalRequest(id, SIGKILL)) };
  }

  /** Whole or not at all. @throws FileFault, SandboxGone */
  async put(path: string, content: Buffer): Promise<void> {
    const done = Promise.withResolvers<void>();
    const id = this.#begin({ take: (answer) => settleFile(answer, done, undefined), fail: done.reject });
    for (const request of putRequests(id, path, content)) this.#send(request);
    await done.promise;
  }

  /** @throws FileFault (EFBIG when it is larger), SandboxGone */
  async get(path: string, mostBytes: number): Promise<Buffer> {
    const done = Promise.withResolvers<Buffer>();
    const parts: Buffer[] = [];
    let bytes = 0;
    const id = this.#begin({
      take: (answer) => {
        if (answer.kind !== "data") return settleFile(answer, done, Buffer.concat(parts));
        bytes += answer.bytes.length;
        parts.push(Buffer.from(answer.bytes));
        return bytes > mostBytes ? "wrong" : "more";
      },
      fail: done.reject,
    });
    this.#send(getRequest(id, path, mostBytes));
    return await done.promise;
  }

  /** What is in a directory, sorted by name. @throws FileFault, SandboxGone */
  async list(path: string): Promise<Entry[]> {
    const done = Promise.withResolvers<Entry[]>();
    const entries: Entry[] = [];
    const id = this.#begin({
      take: (answer) => {
        if (answer.kind !== "entry") return settleFile(answer, done, entries);
        return entries.push(answer.entry) > MAX_ENTRIES ? "wrong" : "more";
      },
      fail: done.reject,
    });
    this.#send(listRequest(id, path));
    return (await done.promise).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Everything in it stands still, and takes no CPU time. */
  async pause(): Promise<void> {
    await answered(this.#container.pause());
  }

  async resume(): Promise<void> {
    await answered(this.#container.unpause());
  }

  /**
   * Whether the kernel ended something in it for want of memory.
   * @throws RpcError SANDBOX_LOST when the engine is gone.
   */
  async ranOutOfMemory(): Promise<boolean> {
    try {
      return (await answered(this.#container.inspect())).State.OOMKilled === true;
    } catch (error) {
      if (statusOf(error) === undefined) throw lostFault(error);
      return false;
    }
  }

  /** Kills all in it and removes it. Without an engine what runs is killed, and the object reaped when one is back. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#removed ??= this.#remove();
    return this.#removed;
  }

  async #remove(): Promise<void> {
    this.#end({ kind: "ended" });
    try {
      await answered(this.#container.remove({ force: true, v: true }));
    } catch (error) {
      if (statusOf(error) === undefined) await this.cgroup?.kill();
    }
    await this.cgroup?.remove();
  }

  #begin(pending: Pending): number {
    if (!this.alive) throw new SandboxGone("the sandbox is gone");
    this.#lastId = (this.#lastId + 1) >>> 0;
    this.#pending.set(this.#lastId, pending);
    return this.#lastId;
  }

  #send(request: Buffer): void {
    if (this.alive) this.#stream?.write(request);
  }

  #read(frames: FrameParser, chunk: Buffer): void {
    try {
      frames.write(chunk);
    } catch (error) {
      this.#end({ kind: "broke the protocol", how: error instanceof Error ? error.message : String(error) });
      return;
    }
    this.#burst += chunk.length;
    this.#burstTimer ??= setTimeout(() => {
      this.#burstTimer = undefined;
      this.#burst = 0;
      this.#stream?.resume();
    }, BURST_MS);
    if (this.#burst > BURST_BYTES) this.#stream?.pause();
  }

  /** @throws Error for what was not asked for. */
  #take(answer: Answer): void {
    if (this.#over) return;
    if (answer.kind === "hello") {
      if (this.#greeted) throw new Error("a second greeting");
      if (answer.version !== PROTOCOL_VERSION) throw new Error(`protocol version ${answer.version}`);
      this.#greeted = true;
      this.#hello.resolve();
      return;
    }
    const pending = this.#greeted ? this.#pending.get(answer.id) : undefined;
    const next = pending?.take(answer) ?? "wrong";
    if (next === "wrong") throw new Error(`${answer.kind} for ${answer.id}, which was not asked for`);
    if (next === "done") this.#pending.delete(answer.id);
  }

  #end(gone: Gone): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#burstTimer);
    const fault = new SandboxGone(gone.kind === "ended" ? "the sandbox is gone" : `the sandbox sent ${gone.how}`);
    this.#hello.reject(fault);
    for (const pending of this.#pending.values()) pending.fail(fault);
    this.#pending.clear();
    this.#gone.resolve(gone);
    this.#stream?.destroy();
  }
}

/** What was asked for and not answered in full yet. */
type Pending = {
  readonly take: (answer: Answer) => "more" | "done" | "wrong";
  readonly fail: (fault: Error) => void;
};

function settleFile<T>(answer: Answer, done: PromiseWithResolvers<T>, value: T): "done" | "wrong" {
  if (answer.kind === "done") done.resolve(value);
  else if (answer.kind === "failed") done.reject(new FileFault(answer.errno));
  else return "wrong";
  return "done";
}

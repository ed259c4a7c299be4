import type { Duplex } from "node:stream";
import { setTimeout as pause } from "node:timers/promises";
import type Docker from "dockerode";
import type { RunEnd, RunIo, RunSpec } from "../backend.ts";
import type { RunCgroup } from "./cgroup.ts";
import { type Container, createOptions } from "./create.ts";
import { answered, createFault, lostFault, statusOf } from "./faults.ts";
import { engineMeter, Metering, NOTHING_USED, type Sample } from "./meter.ts";
import { ContainerOutput } from "./output.ts";

export type ContainerProgram = { readonly image: string; readonly command: readonly string[] };

export type Ended = {
  readonly end: RunEnd;
  readonly exitCode: number;
  readonly used: Sample;
  readonly wallMs: number;
  readonly output: ReturnType<ContainerOutput["end"]>;
};

/** How long a killed container may take to be gone, and its last output to come. */
const GRACE_MS = 10_000;
const SAMPLE_MS = 100;

/**
 * Runs one program in a container of its own, which is gone when this ends, however it ends.
 * @throws RpcError for a fault of the engine.
 */
export class ContainerRun {
  readonly #docker: Docker;
  readonly #spec: RunSpec;
  readonly #program: ContainerProgram;
  readonly #description: Container;
  readonly #cgroup: RunCgroup | undefined;
  readonly #container: Docker.Container;
  /** Why we ended it; undefined when it ended by itself. */
  #stopped: "timeout" | "cpu" | "killed" | undefined;
  #killTimer: NodeJS.Timeout | undefined;
  readonly #killFailed = Promise.withResolvers<never>();

  constructor(
    docker: Docker,
    spec: RunSpec,
    program: ContainerProgram,
    description: Container,
    cgroup: RunCgroup | undefined,
  ) {
    this.#docker = docker;
    this.#spec = spec;
    this.#program = program;
    this.#description = description;
    this.#cgroup = cgroup;
    this.#container = docker.getContainer(description.name);
    this.#killFailed.promise.catch(() => {});
  }

  async run(io: RunIo): Promise<Ended> {
    try {
      await this.#create();
      return await this.#perform(io);
    } finally {
      clearTimeout(this.#killTimer);
      await this.#remove();
    }
  }

  async #create(): Promise<void> {
    try {
      await answered(this.#docker.createContainer(createOptions(this.#spec, this.#program.command, this.#description)));
    } catch (error) {
      throw createFault(error, this.#program.image);
    }
  }

  async #perform(io: RunIo): Promise<Ended> {
    const output = new ContainerOutput(this.#spec.limits.outputBytes, io.onOutput);
    // Apart: what fails to be written must not end what is still to be read. Before the start, so nothing is missed.
    const [stdin, stdoutAndErr] = await Promise.all([
      this.#attach({ stdin: true }),
      this.#attach({ stdout: true, stderr: true }),
    ]);
    try {
      const drained = drain(stdoutAndErr, output);
      stdin.on("error", () => {}); // a program need not read its arguments
      if (io.signal.aborted) return unstarted(output);
      await this.#start();
      stdin.end(this.#spec.argumentsJson);
      const ran = await this.#confine(io, drained);
      await within(GRACE_MS, drained);
      return { ...ran, output: output.end() };
    } finally {
      stdin.destroy();
      stdoutAndErr.destroy();
    }
  }

  /** From the start to the end, or to one of the bounds. */
  async #confine(io: RunIo, drained: Promise<void>): Promise<Omit<Ended, "output">> {
    const { wallMs, cpuMs } = this.#spec.limits;
    const startedAt = performance.now();
    const kill = (): void => this.#stop("killed");
    const timer = setTimeout(() => this.#stop("timeout"), wallMs);
    const metering = new Metering(this.#cgroup ?? engineMeter(this.#container), SAMPLE_MS, (used) => {
      if (used.cpuMs > cpuMs) this.#stop("cpu");
    });
    io.signal.addEventListener("abort", kill);
    if (io.signal.aborted) kill();
    try {
      const exitCode = await this.#exitCode(drained);
      const elapsedMs = performance.now() - startedAt;
      const stopped = this.#stopped;
      const used = await metering.stop();
      return { end: stopped ?? (await this.#endOf(exitCode, used)), exitCode, used, wallMs: elapsedMs };
    } finally {
      clearTimeout(timer);
      io.signal.removeEventListener("abort", kill);
      await metering.stop();
    }
  }

  async #attach(streams: { stdin: true } | { stdout: true; stderr: true }): Promise<Duplex> {
    try {
      const stream = await answered(this.#container.attach({ stream: true, hijack: true, ...streams }));
      return stream as Duplex; // a socket: the connection is upgraded
    } catch (error) {
      throw createFault(error, this.#program.image);
    }
  }

  async #start(): Promise<void> {
    try {
      await answered(this.#container.start());
    } catch (error) {
      throw statusOf(error) === undefined ? lostFault(error) : createFault(error, this.#program.image);
    }
  }

  /**
   * A wait for a container that runs no longer: asked after the start, it cannot come too late. An engine that dies
   * does not end that wait, but closes the streams; so from then on we ask again and again until it answers or not.
   */
  async #exitCode(streamEnded: Promise<void>): Promise<number> {
    const settled = new AbortController();
    const waited = this.#container.wait().then(({ StatusCode }: { StatusCode: number }) => StatusCode);
    const asked = streamEnded.then(() => this.#askUntilExited(settled.signal));
    asked.catch(() => {});
    try {
      return await Promise.race([waited.catch(() => asked), asked, this.#killFailed.promise]);
    } catch (error) {
      throw lostFault(error);
    } finally {
      settled.abort();
    }
  }

  async #askUntilExited(signal: AbortSignal): Promise<number> {
    for (let pauseMs = 250; ; pauseMs = Math.min(2 * pauseMs, 2_000)) {
      await pause(pauseMs, undefined, { signal });
      const { State } = await answered(this.#container.inspect());
      if (!State.Running) return State.ExitCode;
    }
  }

  #stop(why: "timeout" | "cpu" | "killed"): void {
    if (this.#stopped !== undefined) return;
    this.#stopped = why;
    void this.#kill();
  }

  async #kill(): Promise<void> {
    try {
      await answered(this.#container.kill());
      this.#killTimer = setTimeout(() => this.#killFailed.reject(new Error("killed, and not gone")), GRACE_MS);
    } catch (error) {
      // 404, 409: it has not started or has ended already. An engine that is not there to kill is a lost one.
      if (statusOf(error) === undefined) this.#killFailed.reject(error);
    }
  }

  async #endOf(exitCode: number, used: Sample): Promise<RunEnd> {
    if (exitCode === 0) return "exited";
    const { cpuMs, memoryBytes } = this.#spec.limits;
    const killed = exitCode === 128 + SIGKILL;
    if (exitCode === 128 + SIGXCPU || (killed && used.cpuMs > cpuMs)) return "cpu";
    // The engine may notice late, or not, that the kernel ran out of memory to give: the peak tells as well.
    if (killed && used.peakMemoryBytes >= memoryBytes - (64 << 10)) return "oom";
    const { State } = await answered(this.#container.inspect());
    return State.OOMKilled ? "oom" : "exited";
  }

  async #remove(): Promise<void> {
    try {
      await answered(this.#container.remove({ force: true, v: true }));
    } catch (error) {
      // Without an engine we end what runs ourselves, if we can; the object is reaped when an engine is back.
      if (statusOf(error) === undefined) await this.#cgroup?.kill();
    }
    await this.#cgroup?.remove();
  }
}

const SIGKILL = 9;
const SIGXCPU = 24;

/** Settles when the stream is over; a fault of it is an end like another: the engine says how the program ended. */
async function drain(stream: Duplex, output: ContainerOutput): Promise<void> {
  const closed = Promise.withResolvers<void>();
  stream.on("data", (chunk: Buffer) => {
    try {
      output.write(chunk);
    } catch (error) {
      stream.destroy(error instanceof Error ? error : undefined);
    }
  });
  stream.on("error", () => closed.resolve()); // the program read no stdin, or the engine went
  stream.on("end", () => closed.resolve());
  stream.on("close", () => closed.resolve());
  await closed.promise;
}

/** Cancelled before it could start. */
function unstarted(output: ContainerOutput): Ended {
  return { end: "killed", exitCode: 0, used: NOTHING_USED, wallMs: 0, output: output.end() };
}

async function within(ms: number, promise: Promise<void>): Promise<void> {
  const late = Promise.withResolvers<void>();
  const timer = setTimeout(late.resolve, ms);
  await Promise.race([promise, late.promise]);
  clearTimeout(timer);
}

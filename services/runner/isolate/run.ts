import { JsonError, parseJson } from "../../shared/json.ts";
import { DEFAULT_MAX_CALLS } from "../../shared/manifest.ts";
import { MAX_DEPTH } from "../../shared/nesting.ts";
import type { Enforcement, LimitHit, RunEnd, RunIo, RunResult, RunSpec } from "../backend.ts";
import { CappedOutput } from "../output.ts";
import { Asks, type Fetch } from "./asks.ts";
import { MAX_BINDING_CALLS } from "./bindings.ts";
import type { Confinement } from "./confine.ts";
import type { WorkerPool } from "./pool.ts";
import type { Answer, FromRun, WorkerEnd, WorkerProcess } from "./worker-process.ts";

export type Program = {
  /** The body of an async function. */
  readonly code: string;
  /** JSON. */
  readonly input: string;
};

export type IsolateRunOptions = {
  readonly pool: WorkerPool;
  readonly confinement: Confinement;
  readonly spec: RunSpec;
  readonly io: RunIo;
  readonly program: Program;
  /** Absent where it may not. */
  readonly fetch?: Fetch | undefined;
};

/** How often a running program's CPU time and memory are looked at. */
const WATCH_MS = 20;
/** Linux tells CPU time in steps of this. */
const CPU_STEP_MS = 10;
/**
 * V8 holds its own heap to the limit, but not what is outside it: resizable buffers, large integers, WebAssembly. A
 * process that grows by more than the limit and this, for V8's young generation and the stack, is ended.
 */
const OUTSIDE_HEAP_BYTES = 48 << 20;
const MAX_ERROR_CHARS = 4096;
/** A worker makes its next isolate in a few milliseconds. */
const READY_AGAIN_MS = 2_000;
let lastRun = 0;

/** One run on one worker, from its wait for one to its result. */
export class IsolateRun {
  readonly #options: IsolateRunOptions;
  readonly #enforcement: Enforcement;
  readonly #spec: RunSpec;
  readonly #io: RunIo;
  readonly #output: { readonly stdout: CappedOutput; readonly stderr: CappedOutput };
  readonly #run = ++lastRun;
  readonly #startedMs = performance.now();
  #before = { cpuMs: 0, bytes: 0 };
  #peakBytes = 0;
  #cpuMs = 0;

  constructor(options: IsolateRunOptions) {
    const { confinement, spec, io } = options;
    const { enforced, missing } = confinement;
    this.#options = options;
    this.#enforcement = { kind: "isolate", isolationClass: "process", enforced, missing };
    this.#spec = spec;
    this.#io = io;
    const capped = (stream: "stdout" | "stderr") =>
      new CappedOutput(spec.limits.outputBytes, (text) => io.onOutput(stream, text));
    this.#output = { stdout: capped("stdout"), stderr: capped("stderr") };
  }

  async run(): Promise<RunResult> {
    const { tenant, limits, depth } = this.#spec;
    const overtime = new AbortController();
    const clock = setTimeout(() => overtime.abort(), limits.wallMs);
    const stop = AbortSignal.any([overtime.signal, this.#io.signal]);
    const endNow = (): "killed" | "timeout" => (this.#io.signal.aborted ? "killed" : "timeout");
    // One that may wait for another leaves a place to each level below it.
    const leaves = this.#mayCall ? MAX_DEPTH + 1 - depth : 0;
    try {
      const worker = await this.#options.pool.acquire(tenant, stop, leaves).catch(() => undefined);
      if (worker === undefined) return this.#neverBegan(stop.aborted ? endNow() : "lost");
      return await this.#runOn(worker, stop, endNow);
    } finally {
      clearTimeout(clock);
    }
  }

  get #maxCalls(): number {
    const { sandbox } = this.#spec;
    return (sandbox.kind === "isolate" ? sandbox.max_calls : undefined) ?? DEFAULT_MAX_CALLS;
  }

  get #mayCall(): boolean {
    const { sandbox, depth } = this.#spec;
    return sandbox.kind === "isolate" && (sandbox.calls ?? []).length > 0 && depth < MAX_DEPTH;
  }

  async #runOn(worker: WorkerProcess, stop: AbortSignal, endNow: () => "killed" | "timeout"): Promise<RunResult> {
    const { limits } = this.#spec;
    const { pool, program, fetch } = this.#options;
    const answer = Promise.withResolvers<Answer>();
    let killedAs: RunEnd | undefined;
    const kill = (end: RunEnd): void => {
      killedAs ??= end;
      worker.kill(`its program was ended: ${end}`);
    };
    const onStop = (): void => kill(endNow());
    stop.addEventListener("abort", onStop, { once: true });
    this.#before = { cpuMs: worker.cpuMs() ?? 0, bytes: worker.residentBytes() ?? 0 };
    const watch = setInterval(() => {
      this.#look(worker);
      if (this.#cpuMs > limits.cpuMs) kill("cpu");
      else if (this.#peakBytes > limits.memoryBytes + OUTSIDE_HEAP_BYTES) kill("oom");
    }, WATCH_MS);
    const asks = new Asks(this.#io, fetch, this.#maxCalls, (id, json) => worker.reply(this.#run, id, json));
    const ready = worker.send(
      {
        kind: "run",
        run: this.#run,
        ...program,
        memoryMb: Math.max(8, Math.floor(limits.memoryBytes / 2 ** 20)),
        outputBytes: limits.outputBytes,
        mayCall: this.#mayCall,
        mayFetch: fetch !== undefined,
        asks: this.#maxCalls,
      },
      (message) => {
        if (message.kind === "output") this.#print(message);
        else if (message.kind === "ask" || message.kind === "fetch") asks.take(message);
        else answer.resolve(message);
      },
    );
    try {
      const first = await Promise.race([answer.promise, worker.ended]);
      if ("why" in first) return this.#afterDeath(first, killedAs);
      return this.#afterAnswer(first, worker);
    } finally {
      clearInterval(watch);
      stop.removeEventListener("abort", onStop);
      await asks.end();
      // A worker that makes no new isolate, or cannot, is not given back; nobody waits for it here.
      const back = setTimeout(() => worker.kill("it did not become ready again"), READY_AGAIN_MS);
      void Promise.race([ready, worker.ended]).then(() => {
        clearTimeout(back);
        pool.release(worker);
      });
    }
  }

  #look(worker: WorkerProcess): void {
    this.#cpuMs = Math.max(this.#cpuMs, (worker.cpuMs() ?? 0) - this.#before.cpuMs);
    this.#peakBytes = Math.max(this.#peakBytes, (worker.residentBytes() ?? 0) - this.#before.bytes);
  }

  #print(message: Extract<FromRun, { kind: "output" }>): void {
    const output = this.#output[message.stream];
    if (message.dropped > 0) output.skip(message.dropped);
    output.write(Buffer.from(message.text));
  }

  /** What the worker says is checked as if the program had said it: perhaps it has. */
  #afterAnswer(message: Answer, worker: WorkerProcess): RunResult {
    const { limits } = this.#spec;
    // The worker knows to the microsecond, and is believed as far as the operating system bears it out.
    const seenMs = this.#cpuMs;
    this.#look(worker);
    this.#cpuMs = Math.max(seenMs, Math.min(message.cpuMs, this.#cpuMs + CPU_STEP_MS));
    this.#peakBytes = Math.max(this.#peakBytes, Math.min(message.memoryBytes, this.#options.confinement.dataBytes));
    switch (message.kind) {
      case "oom":
        return this.#limited("oom", "heap_bytes");
      case "limit":
        worker.kill(`its program was ended: ${message.limit}`);
        return this.#limited("limit", message.limit, message.amount);
      case "threw":
        return this.#result("exited", "", message.error.slice(0, MAX_ERROR_CHARS));
      case "returned":
        if (Buffer.byteLength(message.json) > limits.outputBytes)
          return this.#limited("limit", "output_bytes", Buffer.byteLength(message.json));
        return this.#result("exited", ...checked(message.json));
    }
  }

  #afterDeath({ signal, why }: WorkerEnd, killedAs: RunEnd | undefined): RunResult {
    switch (killedAs) {
      case "timeout":
        return this.#limited("timeout", "wall_ms");
      case "killed":
        return this.#result("killed", "", "It was ended from outside.");
      case "cpu":
        return this.#limited("cpu", "cpu_ms");
      case "oom":
        return this.#limited("oom", "off_heap_bytes");
      case "lost":
      case "exited":
      case "limit":
      case undefined:
        break;
    }
    // V8 and the allocator abort the process where memory ends: SIGABRT, SIGTRAP, or SIGSEGV past RLIMIT_DATA.
    const memory = signal === "SIGABRT" || signal === "SIGTRAP" || signal === "SIGILL" || signal === "SIGSEGV";
    if (memory) return this.#limited("oom", "heap_bytes");
    return this.#result("lost", "", `Its worker process was lost: ${why}.`);
  }

  #neverBegan(end: "timeout" | "killed" | "lost"): RunResult {
    const { wallMs } = this.#spec.limits;
    const texts = {
      timeout: `It did not begin: no worker was free within ${wallMs} ms. Send it again, or raise runner.isolates.workers.`,
      killed: "It was ended from outside before it began.",
      lost: "It did not begin: the runner stops. Send it again.",
    };
    return this.#result(end, "", texts[end]);
  }

  /** The end of a run that passed a limit: which, and how much of it was used. */
  #limited(end: RunEnd, name: LimitHit["name"], amount?: number): RunResult {
    const { wallMs, cpuMs, memoryBytes, outputBytes } = this.#spec.limits;
    const allowed = {
      wall_ms: wallMs,
      cpu_ms: cpuMs,
      heap_bytes: memoryBytes,
      off_heap_bytes: memoryBytes,
      output_bytes: outputBytes,
      tool_calls: this.#maxCalls,
      binding_calls: MAX_BINDING_CALLS,
    }[name];
    const wall = performance.now() - this.#startedMs;
    const seen = name === "wall_ms" ? wall : name === "cpu_ms" ? this.#cpuMs : this.#peakBytes;
    const used = Math.ceil(amount ?? seen);
    return { ...this.#result(end, "", limitText(name, allowed, used)), limit: { name, allowed, used } };
  }

  #result(end: RunEnd, resultJson: string, error: string): RunResult {
    const { stdout, stderr } = this.#output;
    return {
      end,
      exitCode: end === "exited" && error === "" ? 0 : 1,
      resultJson,
      stdout: stdout.text(),
      stderr: stderr.text(),
      truncated: stdout.truncated || stderr.truncated,
      error,
      usage: {
        wallMs: performance.now() - this.#startedMs,
        cpuMs: this.#cpuMs,
        peakMemoryBytes: this.#peakBytes,
        outputBytes: stdout.totalBytes + stderr.totalBytes + Buffer.byteLength(resultJson),
      },
      enforcement: this.#enforcement,
    };
  }
}

/** A result that can be passed on, or what is wrong with it. */
function checked(json: string): [json: string, problem: string] {
  if (json === "") return ["", ""];
  try {
    parseJson(json);
    return [json, ""];
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const at = error.path === "" ? "" : ` at ${error.path}`;
    return ["", `The result is no JSON that can be passed on${at}: ${error.message}`];
  }
}

function limitText(name: LimitHit["name"], allowed: number, used: number): string {
  const mebibytes = Math.round(allowed / 2 ** 20);
  switch (name) {
    case "wall_ms":
      return `It did not end within ${allowed} ms.`;
    case "cpu_ms":
      return `It used its ${allowed} ms of CPU time.`;
    case "heap_bytes":
      return `It used more than its ${mebibytes} MiB of memory.`;
    case "off_heap_bytes":
      return `It used more than its ${mebibytes} MiB of memory, outside the heap.`;
    case "output_bytes":
      return `The result is ${used} bytes; ${allowed} are allowed. Return less.`;
    case "tool_calls":
      return `It made more calls than the ${allowed} it may make.`;
    case "binding_calls":
      return `It used its bindings more than ${allowed} times.`;
  }
}

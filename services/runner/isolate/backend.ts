import { canonicalJson, type Json, JsonError, parseJson } from "../../shared/json.ts";
import type { Log } from "../../shared/log.ts";
import type { SandboxSpec } from "../../shared/manifest.ts";
import { RpcError } from "../../shared/rpc/errors.ts";
import type { Backend, Capability, Enforcement, RunEnd, RunIo, RunResult, RunSpec } from "../backend.ts";
import { CappedOutput } from "../output.ts";
import { type Confinement, MAX_MEMORY_BYTES, planConfinement, RLIMIT_DATA_BYTES } from "./confine.ts";
import { WorkerPool } from "./pool.ts";
import type { Answer, FromRun, WorkerEnd, WorkerProcess } from "./worker-process.ts";

/** V8 isolates in worker processes: never in the runner's own. */

export type IsolateOptions = {
  readonly workers: { readonly workers: number; readonly warm: number };
  readonly log: Log;
};

export async function openIsolateBackend({ workers, log }: IsolateOptions): Promise<Backend> {
  let confinement: Confinement;
  try {
    confinement = await planConfinement();
  } catch (error) {
    return unavailable(error instanceof Error ? error.message : String(error));
  }
  const { enforced, missing } = confinement;
  const capability: Capability = {
    ...{ kind: "isolate", isolationClass: "process", available: true, note: "", images: [], enforced, missing },
  };
  const pool = new WorkerPool({ confinement, ...workers, log });
  const enforcement: Enforcement = { kind: "isolate", isolationClass: "process", enforced, missing };
  return {
    kind: "isolate",
    describe: async () => [capability],
    check,
    run: (spec, io) => new IsolateRun(pool, enforcement, spec, io).run(),
    [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose](),
  };
}

function unavailable(why: string): Backend {
  const note = `V8 isolates cannot run here: ${why}. Run make up to install what is missing.`;
  const refuse = (): never => {
    throw new RpcError({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE", message: note });
  };
  const none = { images: [], enforced: [], missing: [] };
  return {
    kind: "isolate",
    describe: async () => [{ kind: "isolate", isolationClass: "process", available: false, note, ...none }],
    check: refuse,
    run: async () => refuse(),
    [Symbol.asyncDispose]: async () => {},
  };
}

function check({ tool, sandbox, limits }: RunSpec): void {
  isolateOf(sandbox);
  if (limits.memoryBytes <= MAX_MEMORY_BYTES) return;
  throw new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "LIMIT_UNENFORCEABLE",
    field: "limits.memory_bytes",
    message: `${tool} may use ${limits.memoryBytes} bytes of memory; an isolate is held to at most ${MAX_MEMORY_BYTES}. Lower limits.memory_bytes in its manifest.`,
  });
}

type Isolate = Extract<SandboxSpec, { kind: "isolate" }>;

function isolateOf(sandbox: SandboxSpec): Isolate {
  if (sandbox.kind === "isolate") return sandbox;
  const message = `Isolates cannot run a tool of kind ${sandbox.kind}; choose a runner that can.`;
  throw new RpcError({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE", message });
}

/** The program, and the JSON it sees as `input`: all arguments, or, where one of them is the program, the one called input. */
function programOf(spec: RunSpec): { readonly code: string; readonly input: string } {
  const { code, code_argument: name } = isolateOf(spec.sandbox);
  if (code !== undefined) return { code, input: spec.argumentsJson };
  const args = JSON.parse(spec.argumentsJson) as { readonly [key: string]: Json };
  const given = name === undefined || !Object.hasOwn(args, name) ? undefined : args[name];
  if (typeof given !== "string") {
    const message = `Send the program as text in the argument ${name}.`;
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "ARGUMENTS_INVALID",
      field: `arguments_json.${name}`,
      message,
    });
  }
  return { code: given, input: canonicalJson(args["input"] ?? null) };
}

/** How often a running program's CPU time and memory are looked at. */
const WATCH_MS = 20;
/** Linux tells CPU time in steps of this. */
const CPU_STEP_MS = 10;
/**
 * V8 holds its own heap to the limit, but not what is outside it: resizable and shared buffers, large integers. A
 * process that grows by more than the limit and this, for V8's young generation and the stack, is ended.
 */
const OUTSIDE_HEAP_BYTES = 48 << 20;
let lastRun = 0;

/** One run on one worker, from its wait for one to its result. */
class IsolateRun {
  readonly #pool: WorkerPool;
  readonly #enforcement: Enforcement;
  readonly #spec: RunSpec;
  readonly #io: RunIo;
  readonly #output: { readonly stdout: CappedOutput; readonly stderr: CappedOutput };
  readonly #run = ++lastRun;
  readonly #startedMs = performance.now();
  #before = { cpuMs: 0, bytes: 0 };
  #peakBytes = 0;
  #cpuMs = 0;

  constructor(pool: WorkerPool, enforcement: Enforcement, spec: RunSpec, io: RunIo) {
    this.#pool = pool;
    this.#enforcement = enforcement;
    this.#spec = spec;
    this.#io = io;
    const capped = (stream: "stdout" | "stderr") =>
      new CappedOutput(spec.limits.outputBytes, (text) => io.onOutput(stream, text));
    this.#output = { stdout: capped("stdout"), stderr: capped("stderr") };
  }

  async run(): Promise<RunResult> {
    const { wallMs } = this.#spec.limits;
    const program = programOf(this.#spec);
    const overtime = new AbortController();
    const clock = setTimeout(() => overtime.abort(), wallMs);
    const stop = AbortSignal.any([overtime.signal, this.#io.signal]);
    const endNow = (): "killed" | "timeout" => (this.#io.signal.aborted ? "killed" : "timeout");
    try {
      const worker = await this.#pool.acquire(this.#spec.tenant, stop).catch(() => undefined);
      if (worker === undefined) return this.#neverBegan(stop.aborted ? endNow() : "lost");
      return await this.#runOn(worker, program, stop, endNow);
    } finally {
      clearTimeout(clock);
    }
  }

  async #runOn(
    worker: WorkerProcess,
    program: { code: string; input: string },
    stop: AbortSignal,
    endNow: () => "killed" | "timeout",
  ): Promise<RunResult> {
    const { limits } = this.#spec;
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
    const ready = worker.send(
      {
        kind: "run",
        run: this.#run,
        ...program,
        memoryMb: Math.max(8, Math.floor(limits.memoryBytes / 2 ** 20)),
        outputBytes: limits.outputBytes,
      },
      (message) => {
        if (message.kind === "output") this.#print(message);
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
      // A worker that makes no new isolate, or cannot, is not given back; nobody waits for it here.
      const back = setTimeout(() => worker.kill("it did not become ready again"), READY_AGAIN_MS);
      void Promise.race([ready, worker.ended]).then(() => {
        clearTimeout(back);
        this.#pool.release(worker);
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
    this.#peakBytes = Math.max(this.#peakBytes, Math.min(message.memoryBytes, RLIMIT_DATA_BYTES));
    switch (message.kind) {
      case "oom":
        return this.#result("oom", "", oomText(limits.memoryBytes));
      case "threw":
        return this.#result("exited", "", message.error.slice(0, MAX_ERROR_CHARS));
      case "returned": {
        const problem = problemOf(message.json, limits.outputBytes);
        return problem === undefined ? this.#result("exited", message.json, "") : this.#result("exited", "", problem);
      }
    }
  }

  #afterDeath({ signal, why }: WorkerEnd, killedAs: RunEnd | undefined): RunResult {
    const { wallMs, cpuMs, memoryBytes } = this.#spec.limits;
    switch (killedAs) {
      case "timeout":
      case "killed":
        return this.#result(killedAs, "", timeoutText(killedAs, wallMs));
      case "cpu":
        return this.#result("cpu", "", `It used its ${cpuMs} ms of CPU time.`);
      case "oom":
        return this.#result("oom", "", oomText(memoryBytes));
      case "lost":
      case "exited":
      case undefined:
        break;
    }
    // V8 and the allocator abort the process where memory ends: SIGABRT, SIGTRAP, or SIGSEGV past RLIMIT_DATA.
    const memory = signal === "SIGABRT" || signal === "SIGTRAP" || signal === "SIGILL" || signal === "SIGSEGV";
    if (memory) return this.#result("oom", "", oomText(memoryBytes));
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

const MAX_ERROR_CHARS = 4096;
/** A worker makes its next isolate in a few milliseconds. */
const READY_AGAIN_MS = 2_000;

function problemOf(json: string, outputBytes: number): string | undefined {
  if (json === "") return undefined;
  const bytes = Buffer.byteLength(json);
  if (bytes > outputBytes) return `The result is ${bytes} bytes; ${outputBytes} are allowed. Return less.`;
  try {
    parseJson(json);
    return undefined;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const at = error.path === "" ? "" : ` at ${error.path}`;
    return `The result is no JSON that can be passed on${at}: ${error.message}`;
  }
}

function timeoutText(end: RunEnd, wallMs: number): string {
  return end === "killed" ? "It was ended from outside." : `It did not end within ${wallMs} ms.`;
}

function oomText(memoryBytes: number): string {
  return `It used more than its ${Math.round(memoryBytes / 2 ** 20)} MiB of memory.`;
}

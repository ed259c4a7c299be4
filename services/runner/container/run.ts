import type { RunEnd, RunSpec } from "../backend.ts";
import type { Exit, HarnessRun } from "./harness.ts";
import { Metering, NOTHING_USED, type Sample, sinceNow } from "./meter.ts";
import type { ContainerOutput } from "./output.ts";
import { FileFault, type Sandbox, SandboxGone } from "./sandbox.ts";

export type Ended = {
  readonly end: RunEnd;
  readonly exitCode: number;
  readonly used: Sample;
  readonly wallMs: number;
  readonly output: ReturnType<ContainerOutput["end"]>;
  /** What the sandbox did that ended it; empty where it did nothing of the kind. */
  readonly broke: string;
};

/** How long a killed program of a session may take to be gone, before its sandbox goes. */
const GRACE_MS = 5_000;
const SAMPLE_MS = 100;
const SIGKILL = 9;
const SIGXCPU = 24;
const EAGAIN = 11;

type Stopped = "timeout" | "cpu" | "killed";

/**
 * Runs one program in a sandbox to its end, or to one of the bounds. A call's sandbox is destroyed when the program
 * does not end by itself; of a session's, the program is killed and the sandbox stays.
 * @throws RpcError SANDBOX_LOST when the engine vanished.
 */
export async function runProgram(
  sandbox: Sandbox,
  { limits, argumentsJson }: Pick<RunSpec, "limits" | "argumentsJson">,
  run: HarnessRun,
  io: { readonly signal: AbortSignal; readonly output: ContainerOutput },
): Promise<Ended> {
  if (io.signal.aborted) return unstarted(io.output);
  await sandbox.cgroup?.resetPeak();
  const meter = sinceNow(sandbox.meter, await sandbox.meter.sample().catch(() => NOTHING_USED));
  const startedAt = performance.now();
  const started = sandbox.start(run, argumentsJson, (stream, bytes) => io.output.write(stream, bytes));
  let stopped: Stopped | undefined;
  let grace: NodeJS.Timeout | undefined;
  const stop = (why: Stopped): void => {
    if (stopped !== undefined) return;
    stopped = why;
    if (!run.keepsOthers) void sandbox[Symbol.asyncDispose]();
    else {
      started.kill();
      grace = setTimeout(() => void sandbox[Symbol.asyncDispose](), GRACE_MS);
    }
  };
  const kill = (): void => stop("killed");
  const timer = setTimeout(() => stop("timeout"), limits.wallMs);
  const metering = new Metering(meter, SAMPLE_MS, (used) => {
    if (used.cpuMs > limits.cpuMs) stop("cpu");
  });
  io.signal.addEventListener("abort", kill);
  if (io.signal.aborted) kill();
  try {
    const last = await lastOf(sandbox, started.exit);
    const wallMs = performance.now() - startedAt;
    const used = larger(await metering.stop(), last.exit);
    const end = stopped ?? (await endOf(sandbox, last, used, limits));
    return { end, exitCode: last.exit?.exitCode ?? 0, used, wallMs, output: io.output.end(), broke: last.broke };
  } finally {
    clearTimeout(timer);
    clearTimeout(grace);
    io.signal.removeEventListener("abort", kill);
    await metering.stop();
  }
}

/** Cancelled before it could start. */
export function unstarted(output: ContainerOutput): Ended {
  return { end: "killed", exitCode: 0, used: NOTHING_USED, wallMs: 0, output: output.end(), broke: "" };
}

/** The last that was heard of a program: its exit, or that its sandbox ended, and why. */
type Last = { readonly exit: Exit | undefined; readonly broke: string };

async function lastOf(sandbox: Sandbox, exit: Promise<Exit>): Promise<Last> {
  try {
    return { exit: await exit, broke: "" };
  } catch (error) {
    if (error instanceof FileFault) {
      const text =
        error.errno === EAGAIN ? "has as many processes as it may" : `could not start it (errno ${error.errno})`;
      return { exit: undefined, broke: `The sandbox ${text}.` };
    }
    if (!(error instanceof SandboxGone)) throw error;
    const gone = await sandbox.gone;
    return { exit: undefined, broke: gone.kind === "ended" ? "" : `The sandbox broke the protocol: ${gone.how}.` };
  }
}

/** The meter's word counts; where it came too late, the harness's own. */
function larger(used: Sample, exit: Exit | undefined): Sample {
  return {
    cpuMs: Math.max(used.cpuMs, exit?.cpuMs ?? 0),
    peakMemoryBytes: Math.max(used.peakMemoryBytes, exit?.peakMemoryBytes ?? 0),
  };
}

async function endOf(
  sandbox: Sandbox,
  { exit, broke }: Last,
  used: Sample,
  limits: RunSpec["limits"],
): Promise<RunEnd> {
  if (exit?.exitCode === 0) return "exited";
  if (broke !== "") return "lost";
  const killed = exit === undefined || exit.exitCode === 128 + SIGKILL;
  if (exit?.exitCode === 128 + SIGXCPU || (killed && used.cpuMs > limits.cpuMs)) return "cpu";
  // The engine may notice late, or not, that the kernel ran out of memory to give: the peak tells as well.
  if (killed && used.peakMemoryBytes >= limits.memoryBytes - (64 << 10)) return "oom";
  if (await sandbox.ranOutOfMemory()) return "oom";
  return exit === undefined ? "lost" : "exited";
}

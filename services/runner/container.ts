import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import Docker from "dockerode";
import { canonicalJson, parseJson } from "../shared/json.ts";
import type { Log } from "../shared/log.ts";
import type { SandboxSpec } from "../shared/manifest.ts";
import type { Backend, Capability, Enforcement, RunIo, RunResult, RunSpec } from "./backend.ts";
import { type CgroupRoot, openCgroupRoot } from "./container/cgroup.ts";
import {
  type ContainerClass,
  containerClass,
  type EngineFacts,
  ISOLATION_CLASSES,
  readFacts,
} from "./container/facts.ts";
import { unavailable } from "./container/faults.ts";
import { lockedImage, readImageLock } from "./container/lock.ts";
import { thisOwner } from "./container/owner.ts";
import { labelsOf, type Marks, reap } from "./container/reap.ts";
import { ContainerRun, type Ended } from "./container/run.ts";

export type ContainerOptions = {
  readonly runnerId: string;
  /** images.lock.json; seccomp.json lies beside it. */
  readonly lockFile: string;
  readonly bootId: string;
  readonly log: Log;
  readonly now: () => number;
  /** The engine's; by default DOCKER_HOST's, or the usual one. */
  readonly socketPath?: string;
};

/** Opens also where no engine answers: it is looked for until there is one, and every run is refused until then. */
export async function openContainerBackend(options: ContainerOptions): Promise<Backend> {
  const owner = thisOwner();
  const backend = new ContainerBackend(options, owner, await openCgroupRoot(owner));
  await backend.probe();
  return backend;
}

type ContainerSpec = Extract<SandboxSpec, { kind: "container" }>;

/** How often to look whether the engine is there, and what was left over. */
const PROBE_MS = 2_000;
const REAP_MS = 60_000;
/** How long after its wall clock a container may be held for a leftover. */
const EXPIRY_SLACK_MS = 120_000;

class ContainerBackend implements Backend {
  readonly kind = "container";
  readonly #options: ContainerOptions;
  readonly #marks: Marks;
  readonly #docker: Docker;
  readonly #seccomp: string;
  readonly #cgroups: CgroupRoot | undefined;
  /** Until a run has shown that the engine's control groups are not those that we see. */
  #sameMachine = true;
  readonly #running = new Set<Promise<unknown>>();
  /** The names of their containers. */
  readonly #underWay = new Set<string>();
  readonly #kill = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #facts: EngineFacts | undefined;
  #probing: Promise<void> | undefined;
  #reapedAt = Number.NEGATIVE_INFINITY;

  constructor(options: ContainerOptions, owner: string, cgroups: CgroupRoot | undefined) {
    const { runnerId, bootId, lockFile, socketPath } = options;
    this.#options = options;
    this.#marks = { runnerId, bootId, owner };
    this.#docker = socketPath === undefined ? new Docker() : new Docker({ socketPath });
    this.#seccomp = JSON.stringify(JSON.parse(readFileSync(join(dirname(lockFile), "seccomp.json"), "utf8")));
    this.#cgroups = cgroups;
    this.#timer = setInterval(() => void this.#look(), PROBE_MS);
    this.#timer.unref();
  }

  async describe(): Promise<readonly Capability[]> {
    await this.probe();
    return ISOLATION_CLASSES.map((name) => {
      const { runtime: _, ...capability } = this.#class(name);
      return capability;
    });
  }

  check(spec: RunSpec): void {
    this.#admit(spec);
  }

  async run(spec: RunSpec, io: RunIo): Promise<RunResult> {
    const running = this.#run(spec, io);
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#kill.abort();
    await Promise.allSettled([...this.#running, this.#probing]);
    if (this.#facts !== undefined) await this.#reap();
    await this.#cgroups?.[Symbol.asyncDispose]();
  }

  /** One at a time; who asks meanwhile gets the answer of that one. */
  probe(): Promise<void> {
    this.#probing ??= this.#probe().finally(() => {
      this.#probing = undefined;
    });
    return this.#probing;
  }

  async #probe(): Promise<void> {
    const before = this.#facts;
    try {
      this.#facts = await readFacts(this.#docker);
    } catch (error) {
      this.#facts = undefined;
      if (before !== undefined) this.#options.log.warn({ err: error }, "containers.engine_gone");
      return;
    }
    if (before === undefined) await this.#reap();
  }

  async #look(): Promise<void> {
    if (this.#facts === undefined) await this.probe();
    else if (performance.now() - this.#reapedAt > REAP_MS) await this.#reap();
  }

  async #reap(): Promise<void> {
    const { log, now } = this.#options;
    this.#reapedAt = performance.now();
    try {
      const reaped = await reap(this.#docker, this.#marks, this.#underWay, now());
      if (reaped > 0) log.warn({ containers: reaped }, "containers.reaped");
    } catch (error) {
      log.warn({ err: error }, "containers.reap_failed");
    }
  }

  #class(name: ContainerSpec["isolation_class"]): ContainerClass {
    const images = lockedNames(this.#options.lockFile);
    return containerClass(name, { facts: this.#facts, images, metered: this.#metered() });
  }

  #metered(): boolean {
    return this.#cgroups !== undefined && this.#sameMachine && this.#facts?.takesCgroups === true;
  }

  #admit(spec: RunSpec): { sandbox: ContainerSpec; found: ContainerClass; imageId: string } {
    const sandbox = containerOf(spec.sandbox);
    const found = this.#class(sandbox.isolation_class);
    if (!found.available) throw unavailable(found.note);
    return { sandbox, found, imageId: lockedImage(readImageLock(this.#options.lockFile), sandbox.image) };
  }

  async #run(spec: RunSpec, io: RunIo): Promise<RunResult> {
    const { sandbox, found, imageId } = this.#admit(spec);
    const name = `interlock-${randomUUID()}`;
    const cgroup = this.#metered() ? this.#cgroups?.open(name) : undefined;
    const expiresAtMs = this.#options.now() + spec.limits.wallMs + EXPIRY_SLACK_MS;
    const container = {
      ...{ name, imageId, seccomp: this.#seccomp, cgroupParent: cgroup?.path, runtime: found.runtime },
      labels: labelsOf(this.#marks, spec.callId, expiresAtMs),
    };
    const signal = AbortSignal.any([io.signal, this.#kill.signal]);
    const run = new ContainerRun(this.#docker, spec, sandbox, container, cgroup);
    this.#underWay.add(name);
    try {
      const ended = await run.run({ ...io, signal });
      if (cgroup !== undefined && ended.wallMs > 0 && ended.used.cpuMs === 0) {
        this.#sameMachine = false; // to start a program takes some
        this.#options.log.warn("containers.usage_not_readable");
      }
      return resultOf(spec, ended, found);
    } catch (error) {
      const { callId, tool } = spec;
      this.#options.log.error({ callId, tool, err: error }, "containers.fault");
      this.#reapedAt = Number.NEGATIVE_INFINITY; // it may have left something
      void this.probe();
      throw error;
    } finally {
      this.#underWay.delete(name);
    }
  }
}

function containerOf(sandbox: SandboxSpec): ContainerSpec {
  if (sandbox.kind === "container") return sandbox;
  throw unavailable(`Containers cannot run a tool of kind ${sandbox.kind}; choose a runner that can.`);
}

function lockedNames(lockFile: string): readonly string[] {
  try {
    return [...readImageLock(lockFile).keys()];
  } catch {
    return []; // says so in the capability's note
  }
}

function resultOf(spec: RunSpec, ended: Ended, found: ContainerClass): RunResult {
  const { end, exitCode, output, used, wallMs } = ended;
  const { kind, isolationClass, enforced, missing } = found;
  const enforcement: Enforcement = { kind, isolationClass, enforced, missing };
  const returned = end === "exited" && exitCode === 0 && !output.truncated;
  return {
    ...{ end, exitCode, truncated: output.truncated, stdout: output.stdout, stderr: output.stderr, enforcement },
    resultJson: returned ? jsonIn(output.stdout) : "",
    error: errorOf(spec, ended),
    usage: { wallMs, ...used, outputBytes: output.outputBytes },
  };
}

/** A program returns a value by printing one JSON value and nothing else. */
function jsonIn(stdout: string): string {
  try {
    return canonicalJson(parseJson(stdout));
  } catch {
    return "";
  }
}

function errorOf({ limits }: RunSpec, { end, exitCode }: Ended): string {
  switch (end) {
    case "exited":
      return exitCode === 0 ? "" : `The program ended with exit code ${exitCode}.`;
    case "timeout":
      return `The program ran longer than the ${limits.wallMs} ms it is allowed.`;
    case "cpu":
      return `The program used more than the ${limits.cpuMs} ms of CPU time it is allowed.`;
    case "oom":
      return `The program used more than the ${limits.memoryBytes} bytes of memory it is allowed.`;
    case "killed":
      return "The call was cancelled.";
    case "lost":
    case "limit": // no limit of a container ends it so
      return "The sandbox died without saying why.";
  }
}

import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Meter } from "@opentelemetry/api";
import Docker from "dockerode";
import type { Log } from "../shared/log.ts";
import type { SandboxSpec } from "../shared/manifest.ts";
import type { Backend, Capability, RunIo, RunResult, RunSpec } from "./backend.ts";
import { type CallSecrets, resolveSecrets } from "./call-secrets.ts";
import { type CgroupRoot, openCgroupRoot } from "./container/cgroup.ts";
import {
  type ContainerClass,
  containerClass,
  type EngineFacts,
  ISOLATION_CLASSES,
  type IsolationClass,
  readFacts,
  stricter,
} from "./container/facts.ts";
import { unavailable } from "./container/faults.ts";
import { type FileOperation, type FileResult, parseFileOperation, performFileOperation } from "./container/files.ts";
import { type Folders, openFolders } from "./container/folders.ts";
import { lockedImage, readImageLock } from "./container/lock.ts";
import { type MadeKind, SandboxMaker } from "./container/maker.ts";
import { observeContainers } from "./container/metrics.ts";
import { ContainerOutput } from "./container/output.ts";
import { thisOwner } from "./container/owner.ts";
import { type PoolState, WarmPool } from "./container/pool.ts";
import { type Marks, reap } from "./container/reap.ts";
import { operationResult, resultOf } from "./container/result.ts";
import { runProgram, unstarted } from "./container/run.ts";
import type { Sandbox } from "./container/sandbox.ts";
import { Sessions, sessionKey } from "./container/sessions.ts";
import { openWayOut, WAY_OUT_ENV } from "./container/way-out.ts";
import { resolver } from "./egress/addresses.ts";
import type { WayOutOptions } from "./egress/proxy.ts";
import type { SecretProviders } from "./secrets.ts";

export type ContainerOptions = {
  readonly runnerId: string;
  /** images.lock.json; seccomp.json lies beside it. */
  readonly lockFile: string;
  readonly bootId: string;
  readonly log: Log;
  readonly now: () => number;
  /** Containers kept ready at most; 0 keeps none. */
  readonly warm?: number;
  /** The least isolation for tools of an impact, whatever their manifest says. */
  readonly isolation?: Readonly<Record<RunSpec["impact"], IsolationClass>>;
  readonly secrets?: SecretProviders;
  readonly egress?: Omit<WayOutOptions, "now">;
  readonly meter?: Meter | undefined;
  /** The engine's; by default DOCKER_HOST's, or the usual one. */
  readonly socketPath?: string;
};

/** Opens also where no engine answers: it is looked for until there is one, and every run is refused until then. */
export async function openContainerBackend(options: ContainerOptions): Promise<ContainerBackend> {
  const owner = thisOwner();
  const backend = new ContainerBackend(options, owner, await openCgroupRoot(owner));
  if (options.meter !== undefined) observeContainers(options.meter, () => backend.state());
  await backend.probe();
  return backend;
}

type ContainerSpec = Extract<SandboxSpec, { kind: "container" }>;

/** How often to look whether the engine is there, and what was left over. */
const PROBE_MS = 2_000;
const REAP_MS = 60_000;
/** A pooled one lives as long as it may wait, and a call or session may take: both an hour. */
const POOLED_MS = 7_200_000;
const POOLED_TTL_MS = 3_600_000;
/** Containers being removed behind the calls that used them. */
const MAX_REMOVING = 16;

export class ContainerBackend implements Backend {
  readonly kind = "container";
  readonly #options: ContainerOptions;
  readonly #marks: Marks;
  readonly #docker: Docker;
  readonly #maker: SandboxMaker;
  readonly #cgroups: CgroupRoot | undefined;
  /** Until a run has shown that the engine's control groups are not those that we see. */
  #sameMachine = true;
  readonly #running = new Set<Promise<unknown>>();
  readonly #kill = new AbortController();
  readonly #folders: Folders;
  readonly #pool: WarmPool<MadeKind, Sandbox>;
  readonly #sessions = new Sessions();
  readonly #wayOut: WayOutOptions;
  readonly #timer: NodeJS.Timeout;
  #facts: EngineFacts | undefined;
  #probing: Promise<void> | undefined;
  #reapedAt = Number.NEGATIVE_INFINITY;

  constructor(options: ContainerOptions, owner: string, cgroups: CgroupRoot | undefined) {
    const { runnerId, bootId, lockFile, socketPath } = options;
    this.#options = options;
    this.#marks = { runnerId, bootId, owner };
    this.#docker = socketPath === undefined ? new Docker() : new Docker({ socketPath });
    const seccomp = JSON.stringify(JSON.parse(readFileSync(join(dirname(lockFile), "seccomp.json"), "utf8")));
    this.#cgroups = cgroups;
    this.#folders = openFolders(owner);
    const { now, log, warm = 0, egress = { resolve: resolver([]), extraCa: [] } } = options;
    this.#wayOut = { ...egress, now };
    const place = { docker: this.#docker, marks: this.#marks, seccomp, cgroups, folders: this.#folders, now };
    this.#maker = new SandboxMaker(place);
    const make = (kind: MadeKind): Promise<Sandbox> => this.#maker.make(kind, POOLED_MS);
    this.#pool = new WarmPool({ make, keyOf: kindKey, maxIdle: warm, log });
    this.#timer = setInterval(() => void this.#look(), PROBE_MS);
    this.#timer.unref();
  }

  async describe(): Promise<readonly Capability[]> {
    await this.probe();
    return ISOLATION_CLASSES.map((name) => {
      const { runtime: _runtime, egress: _egress, metered: _metered, adopt: _adopt, ...capability } = this.#class(name);
      return { ...capability, ...(name === "runc" ? { pool: this.state() } : {}) };
    });
  }

  /** Once as many containers are ready as are wanted. */
  warmed(): Promise<void> {
    return this.#pool.settled();
  }

  state(): PoolState & { readonly sessions: number } {
    return { ...this.#pool.state(), sessions: this.#sessions.size };
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
    await this.#sessions[Symbol.asyncDispose]();
    await this.#pool[Symbol.asyncDispose]();
    await this.#maker.settled();
    if (this.#facts !== undefined) await this.#reap();
    await this.#cgroups?.[Symbol.asyncDispose]();
    this.#folders[Symbol.dispose]();
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
      const reaped = await reap(this.#docker, this.#marks, this.#maker.underWay, now());
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

  #admit(spec: RunSpec): Admitted {
    const sandbox = containerOf(spec.sandbox);
    const asked = stricter(sandbox.isolation_class, this.#options.isolation?.[spec.impact] ?? "runc");
    const found = this.#class(asked);
    if (!found.available) throw unavailable(found.note);
    const egress = spec.egress.length > 0;
    if (egress && !found.egress) throw unavailable(NO_EGRESS);
    const operation = sandbox.operation === undefined ? undefined : operationOf(sandbox.operation, spec);
    const imageId = lockedImage(readImageLock(this.#options.lockFile), sandbox.image);
    const { memoryBytes, pids } = spec.limits;
    const kind = {
      image: sandbox.image,
      imageId,
      runtime: found.runtime,
      memoryBytes,
      pids,
      egress,
      metered: found.metered,
      adopt: found.adopt,
    };
    return { sandbox, found, kind, operation };
  }

  async #run(spec: RunSpec, io: RunIo): Promise<RunResult> {
    const admitted = this.#admit(spec);
    const signal = AbortSignal.any([io.signal, this.#kill.signal]);
    try {
      const secrets = await resolveSecrets(this.#options.secrets ?? {}, spec.secrets, signal);
      if (admitted.operation !== undefined) return await this.#operate(spec, admitted, admitted.operation, signal);
      const perform = (sandbox: Sandbox): Promise<RunResult> =>
        this.#perform(sandbox, spec, admitted, secrets, { ...io, signal });
      if (admitted.sandbox.lifetime === "call") return await this.#inFresh(admitted, perform);
      return await this.#inSession(spec, admitted, signal, perform);
    } catch (error) {
      const { callId, tool } = spec;
      this.#options.log.error({ callId, tool, err: error }, "containers.fault");
      this.#reapedAt = Number.NEGATIVE_INFINITY; // it may have left something
      void this.probe();
      throw error;
    }
  }

  /** In a sandbox that nobody has used, and nobody will again. */
  async #inFresh({ kind }: Admitted, perform: (sandbox: Sandbox) => Promise<RunResult>): Promise<RunResult> {
    const sandbox = await this.#pool.claim(kind);
    let clean = false;
    try {
      const result = await perform(sandbox);
      clean = sandbox.alive; // its harness has killed all else and told so
      return result;
    } finally {
      this.#pool.done(kind);
      const removed = this.#maker.remove(sandbox);
      if (!clean || this.#maker.removing > MAX_REMOVING) await removed;
    }
  }

  async #inSession<T>(
    spec: RunSpec,
    { sandbox: { ttl_ms: ttlMs, idle_ms: idleMs }, kind }: Admitted,
    signal: AbortSignal,
    perform: (sandbox: Sandbox) => Promise<T>,
  ): Promise<T> {
    const make = async (): Promise<{ sandbox: Sandbox; done: () => void }> => {
      if (ttlMs > POOLED_TTL_MS) return { sandbox: await this.#maker.make(kind, ttlMs), done: () => {} };
      return { sandbox: await this.#pool.claim(kind), done: () => this.#pool.done(kind) };
    };
    return await this.#sessions.use(sessionKey(spec, kindKey(kind)), { idleMs, ttlMs }, make, signal, perform);
  }

  async #operate(spec: RunSpec, admitted: Admitted, operation: Operation, signal: AbortSignal): Promise<RunResult> {
    const startedAt = performance.now();
    const key = sessionKey(spec, kindKey(admitted.kind));
    const done = async (): Promise<FileResult> => {
      switch (operation.kind) {
        case "close":
          return existed(await this.#sessions.close(key));
        case "pause":
        case "resume":
          return existed(await this.#sessions.pause(key, operation.kind === "pause"));
        case "upload":
        case "download":
        case "list":
          return await this.#inSession(spec, admitted, signal, (sandbox) =>
            performFileOperation(sandbox, operation, spec),
          );
      }
    };
    return operationResult(spec, await done(), performance.now() - startedAt, admitted.found);
  }

  async #perform(
    sandbox: Sandbox,
    spec: RunSpec,
    admitted: Admitted,
    secrets: CallSecrets,
    io: RunIo,
  ): Promise<RunResult> {
    const output = new ContainerOutput(spec.limits.outputBytes, secrets.newMasker, io.onOutput);
    const {
      found,
      sandbox: { command = [], lifetime },
    } = admitted;
    if (io.signal.aborted) return resultOf(spec, unstarted(output), found, undefined);
    const { egressFolder } = sandbox;
    await using proxy =
      egressFolder === undefined ? undefined : await openWayOut(egressFolder, spec, secrets, this.#wayOut);
    const ended = await runProgram(
      sandbox,
      spec,
      {
        command,
        env: { ...BASE_ENV, ...(proxy === undefined ? {} : WAY_OUT_ENV), ...secrets.env },
        cpuSeconds: Math.ceil(spec.limits.cpuMs / 1000),
        keepsOthers: lifetime === "session",
      },
      { signal: io.signal, output },
    );
    if (
      sandbox.cgroup !== undefined &&
      ended.wallMs > 0 &&
      (await sandbox.meter.sample()).cpuMs === 0 &&
      sandbox.alive
    ) {
      this.#sameMachine = false; // to start a harness takes some
      this.#options.log.warn("containers.usage_not_readable");
    }
    return resultOf(spec, ended, found, proxy);
  }
}

type Operation = FileOperation | { readonly kind: "pause" } | { readonly kind: "resume" } | { readonly kind: "close" };
type Admitted = {
  readonly sandbox: ContainerSpec;
  readonly found: ContainerClass;
  readonly kind: MadeKind;
  readonly operation: Operation | undefined;
};

const BASE_ENV = { PATH: "/usr/local/bin:/usr/bin:/bin", HOME: "/work", LANG: "C.UTF-8" };
const NO_EGRESS =
  "Sandboxes of this class cannot reach the egress proxy's socket on this machine; for gVisor add --fsgofer-host-uds (or, of newer versions, --host-uds=open) to runsc's arguments, or use another class.";

function kindKey(kind: MadeKind): string {
  return JSON.stringify(Object.entries(kind).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function operationOf(name: NonNullable<ContainerSpec["operation"]>, spec: RunSpec): Operation {
  if (name === "pause" || name === "resume" || name === "close") return { kind: name };
  return parseFileOperation(name, spec.argumentsJson);
}

function existed(found: boolean): FileResult {
  if (found) return { exitCode: 0, resultJson: "null", error: "" };
  return { exitCode: 1, resultJson: "", error: "The session has no sandbox of this kind." };
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

import { randomUUID } from "node:crypto";
import { join } from "node:path";
import Docker from "dockerode";
import { parseEgressRules } from "../../shared/egress.ts";
import { silentLog } from "../../shared/log.ts";
import type { SandboxSpec, SecretSpec } from "../../shared/manifest.ts";
import type { Backend, Limits, OutputStream, RunResult, RunSpec } from "../backend.ts";
import { type ContainerBackend, type ContainerOptions, openContainerBackend } from "../container.ts";

/** What the tests of container sandboxes stand on: the engine and the images of this machine. */

export const docker = new Docker();
export const LOCK_FILE = join(import.meta.dirname, "../../../sandbox-images/images.lock.json");

/** Empty when container tests can run. */
export async function whyNoEngine(): Promise<string> {
  try {
    await docker.ping();
    return "";
  } catch {
    return "no Docker engine answers: run deploy/ensure-docker.sh";
  }
}

/** A runner id of its own: tests share the engine with others. */
export function openTestBackend(options: Partial<ContainerOptions> = {}): Promise<ContainerBackend> {
  const id = randomUUID();
  return openContainerBackend({
    ...{ runnerId: `test-${id}`, bootId: id, lockFile: LOCK_FILE, log: silentLog, now: Date.now },
    ...options,
  });
}

export type Program = {
  readonly image: "python" | "node" | "shell";
  readonly command: readonly string[];
  readonly argumentsJson?: string;
  readonly limits?: Partial<Limits>;
  readonly isolationClass?: "runc" | "gvisor" | "kata";
  readonly egress?: readonly string[];
  readonly secrets?: readonly SecretSpec[];
  /** Beside these, of a session's for instance. */
  readonly sandbox?: Partial<Extract<SandboxSpec, { kind: "container" }>>;
  readonly principal?: Partial<Pick<RunSpec, "tenant" | "agent" | "session" | "user">>;
};

export function python(code: string, more: Partial<Program> = {}): Program {
  return { image: "python", command: ["python3", "-c", code], ...more };
}

export function shell(code: string, more: Partial<Program> = {}): Program {
  return { image: "shell", command: ["bash", "-c", code], ...more };
}

export function specOf(program: Program): RunSpec {
  const { image, command, isolationClass } = program;
  const limits = {
    wallMs: 15_000,
    cpuMs: 10_000,
    memoryBytes: 64 << 20,
    outputBytes: 16_384,
    pids: 16,
    egressBytes: 1 << 20,
  };
  return {
    ...{ callId: randomUUID(), tenant: "acme", agent: "a-1", session: "s-1", user: "", tool: "test.program" },
    impact: "low",
    depth: 0,
    egress: parseEgressRules(program.egress ?? []),
    secrets: program.secrets ?? [],
    sandbox: {
      ...{ kind: "container", image, lifetime: "call", idle_ms: 300_000, ttl_ms: 3_600_000 },
      ...(command.length === 0 ? {} : { command: [...command] }),
      isolation_class: isolationClass ?? "runc",
      ...program.sandbox,
    },
    argumentsJson: program.argumentsJson ?? "{}",
    limits: { ...limits, ...program.limits },
    ...program.principal,
  };
}

export type Io = {
  readonly onOutput?: (stream: OutputStream, text: string) => void;
  readonly signal?: AbortSignal;
};

export function runIn(backend: Backend, program: Program, io: Io = {}): Promise<RunResult> {
  const { signal = new AbortController().signal, onOutput = () => {} } = io;
  return backend.run(specOf(program), { signal, onOutput });
}

/** Settles once the program has printed `text`. */
export function printed(text: string): {
  readonly seen: Promise<void>;
  readonly onOutput: NonNullable<Io["onOutput"]>;
} {
  const seen = Promise.withResolvers<void>();
  let all = "";
  const onOutput = (_: OutputStream, more: string): void => {
    all += more;
    if (all.includes(text)) seen.resolve();
  };
  return { seen: seen.promise, onOutput };
}

export async function containersLabelled(label: string): Promise<Docker.ContainerInfo[]> {
  return await docker.listContainers({ all: true, filters: { label: [label] } });
}

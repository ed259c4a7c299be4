import type Docker from "dockerode";
import type { Capability } from "../backend.ts";
import { answered, NO_ENGINE } from "./faults.ts";

export type IsolationClass = "runc" | "gvisor" | "kata";
/** From the weakest to the strongest. */
export const ISOLATION_CLASSES: readonly IsolationClass[] = ["runc", "gvisor", "kata"];

export function stricter(one: IsolationClass, other: IsolationClass): IsolationClass {
  return ISOLATION_CLASSES.indexOf(one) >= ISOLATION_CLASSES.indexOf(other) ? one : other;
}

/** What an engine says of itself, as far as a sandbox depends on it. */
export type EngineFacts = {
  readonly version: string;
  readonly memoryLimit: boolean;
  readonly swapLimit: boolean;
  readonly pidsLimit: boolean;
  readonly cpuQuota: boolean;
  /** It puts containers into control groups, of version 1, where we say. */
  readonly takesCgroups: boolean;
  /** seccomp, apparmor, selinux, userns, rootless, ... */
  readonly security: readonly string[];
  /** By name: the arguments it is started with. */
  readonly runtimes: ReadonlyMap<string, readonly string[]>;
  readonly runcVersion: string;
};

export async function readFacts(docker: Docker): Promise<EngineFacts> {
  const [info, version] = await answered(Promise.all([docker.info(), docker.version()]));
  const runtimes: Record<string, { runtimeArgs?: string[] }> = info.Runtimes ?? {};
  const security: string[] = info.SecurityOptions ?? [];
  const components = version.Components ?? [];
  return {
    version: version.Version,
    memoryLimit: info.MemoryLimit === true,
    swapLimit: info.SwapLimit === true,
    pidsLimit: info.PidsLimit === true,
    cpuQuota: info.CpuCfsQuota === true,
    takesCgroups: info.CgroupDriver === "cgroupfs" && info.CgroupVersion === "1",
    security: security.map((option) => /^name=([^,]+)/.exec(option)?.[1] ?? option),
    runtimes: new Map(Object.entries(runtimes).map(([name, { runtimeArgs }]) => [name, runtimeArgs ?? []])),
    runcVersion: components.find(({ Name }) => Name === "runc")?.Version ?? "",
  };
}

export type ContainerClass = Capability & {
  readonly isolationClass: IsolationClass;
  /** What the engine calls it; undefined for its default. */
  readonly runtime: string | undefined;
  /** The egress proxy's socket can be mounted into it. */
  readonly egress: boolean;
  /** Its control groups are where we put them. */
  readonly metered: boolean;
  /** It sets up none itself: its processes have to be put into ours. */
  readonly adopt: boolean;
};

export type Situation = {
  /** undefined: no engine answers. */
  readonly facts: EngineFacts | undefined;
  readonly images: readonly string[];
  /** What every run uses is read exactly, also of the short ones. */
  readonly metered: boolean;
};

/** How this machine can run containers, class by class; what it cannot says how to mend it. */
export function containerClass(isolationClass: IsolationClass, situation: Situation): ContainerClass {
  const { facts, images } = situation;
  if (facts === undefined) return closed(isolationClass, NO_ENGINE);
  const runtime = RUNTIMES[isolationClass].find((name) => facts.runtimes.has(name));
  if (runtime === undefined) return closed(isolationClass, MENDS[isolationClass]);
  const measures = measuresOf(isolationClass, runtime, facts, situation.metered);
  const named = (holds: boolean): string[] => measures.filter(([, held]) => held === holds).map(([name]) => name);
  const without = isolationClass === "runc" ? REQUIRED.filter((name) => named(false).includes(name)) : [];
  const note = notesOn(isolationClass, facts);
  const metered = named(true).includes("exact-usage");
  const runtimeArgs = facts.runtimes.get(runtime) ?? [];
  const ways = {
    egress: takesSockets(isolationClass, runtimeArgs),
    metered,
    adopt: metered && setsUpNoGroups(runtimeArgs),
  };
  const found = {
    kind: "container",
    isolationClass,
    images,
    enforced: named(true),
    missing: named(false),
    ...ways,
  } as const;
  if (without.length > 0) {
    const mend = `The engine cannot enforce ${without.join(", ")}; enable seccomp and these control groups in the kernel.`;
    return { ...found, available: false, note: mend, runtime: undefined };
  }
  if (images.length === 0) return { ...found, available: false, note: NO_IMAGES, runtime: undefined };
  return { ...found, available: true, note, runtime: isolationClass === "runc" ? undefined : runtime };
}

const RUNTIMES: Record<IsolationClass, readonly string[]> = {
  runc: ["runc"],
  gvisor: ["runsc", "gvisor"],
  kata: ["kata-runtime", "kata", "io.containerd.kata.v2"],
};

function setsUpNoGroups(runtimeArgs: readonly string[]): boolean {
  return runtimeArgs.some((argument) => argument.includes("ignore-cgroups"));
}

/** gVisor opens sockets of the host only when told to; a Kata guest has a kernel of its own, which knows none of them. */
function takesSockets(isolationClass: IsolationClass, runtimeArgs: readonly string[]): boolean {
  if (isolationClass === "runc") return true;
  return isolationClass === "gvisor" && runtimeArgs.some((argument) => /host-uds(?!=(none|false))/.test(argument));
}

const MENDS: Record<IsolationClass, string> = {
  runc: "The engine has no runtime runc; install runc and restart the engine.",
  gvisor:
    "The engine has no runtime runsc; install gVisor (apt-get install runsc), then run deploy/ensure-gvisor.sh as root.",
  kata: "The engine has no Kata runtime; install Kata Containers (it needs /dev/kvm), name it under `runtimes` in /etc/docker/daemon.json and restart the engine.",
};

const NO_IMAGES = "The sandbox images have not been built on this machine; run `make images`.";

/** Without these a container on the host's kernel is not worth the name. */
const REQUIRED: readonly string[] = ["seccomp", "memory-limit", "pids-limit"];

const ALWAYS: readonly string[] = [
  "no-network",
  "read-only-root",
  "no-capabilities",
  "no-new-privileges",
  "non-root",
  "pinned-image",
  "fresh-per-call",
  "no-shared-ipc",
  "wall-clock",
  "output-limit",
];

function measuresOf(
  isolationClass: IsolationClass,
  runtime: string,
  facts: EngineFacts,
  metered: boolean,
): readonly (readonly [string, boolean])[] {
  // gVisor can be told to set up no control groups: then what the engine is asked for does not hold, but what we put
  // its processes into does.
  const groups = metered || !setsUpNoGroups(facts.runtimes.get(runtime) ?? []);
  const onHostKernel: (readonly [string, boolean])[] = [
    ["seccomp", facts.security.includes("seccomp")],
    ["mandatory-access-control", facts.security.some((name) => name === "apparmor" || name === "selinux")],
    ["patched-runc", isPatchedRunc(facts.runcVersion)],
  ];
  return [
    ...ALWAYS.map((name) => [name, true] as const),
    ["memory-limit", groups && facts.memoryLimit],
    ["swap-limit", groups && facts.swapLimit],
    ["pids-limit", groups && facts.pidsLimit],
    ["cpu-rate", groups && facts.cpuQuota],
    ["cpu-limit", groups],
    ["exact-usage", metered],
    ["user-namespace", facts.security.includes("userns") || facts.security.includes("rootless")],
    ...(isolationClass === "runc" ? onHostKernel : [["own-kernel", true] as const]),
  ];
}

function notesOn(isolationClass: IsolationClass, facts: EngineFacts): string {
  if (isolationClass !== "runc" || isPatchedRunc(facts.runcVersion)) return "";
  const found = facts.runcVersion === "" ? "of an unknown version" : facts.runcVersion;
  return `runc ${found} is older than 1.2.8 and 1.3.3, which mend known breakouts (CVE-2025-31133, -52565, -52881); upgrade it, unless your distribution has mended its own, or use gvisor for code you do not trust.`;
}

/** 1.2.8 and 1.3.3 closed breakouts by way of /proc. */
function isPatchedRunc(version: string): boolean {
  const match = /(\d+)\.(\d+)\.(\d+)(-rc)?/.exec(version);
  if (match === null) return false;
  const [major = 0, minor = 0, patch = 0] = match.slice(1, 4).map(Number);
  if (major !== 1) return major > 1;
  if (minor === 2) return patch >= 8;
  if (minor === 3) return patch >= 3;
  return minor > 3;
}

function closed(isolationClass: IsolationClass, note: string): ContainerClass {
  const none = { images: [], enforced: [], missing: [] };
  const ways = { runtime: undefined, egress: false, metered: false, adopt: false };
  return { kind: "container", isolationClass, available: false, note, ...none, ...ways };
}

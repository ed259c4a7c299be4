import type { ContainerCreateOptions } from "dockerode";
import type { RunSpec } from "../backend.ts";

/** Who the sandboxed program is; also in the images' /etc/passwd. */
const USER = "65532:65532";
const SCRATCH = "rw,nosuid,nodev,noexec,size=64m";

export type Container = {
  readonly name: string;
  /** By digest: never a tag, which anyone who reaches the engine can move. */
  readonly imageId: string;
  /** The profile itself: the engine's API takes no path. */
  readonly seccomp: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Where this run is accounted; undefined leaves it to the engine. */
  readonly cgroupParent: string | undefined;
  /** undefined is the engine's default, runc. */
  readonly runtime: string | undefined;
};

/** All that confines a container, in one place. `command` is the tool's; nothing else of a call gets in here. */
export function createOptions(spec: RunSpec, command: readonly string[], container: Container): ContainerCreateOptions {
  return {
    name: container.name,
    Image: container.imageId,
    Cmd: [...command],
    Entrypoint: [],
    User: USER,
    WorkingDir: "/work",
    Hostname: "sandbox",
    Env: ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/work", "LANG=C.UTF-8"],
    Labels: { ...container.labels },
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Tty: false,
    NetworkDisabled: true,
    HostConfig: hostConfig(spec, container),
  };
}

/** The types know no CgroupnsMode; the engine does. */
type HostConfig = ContainerCreateOptions["HostConfig"] & { readonly CgroupnsMode: "private" };

function hostConfig(spec: RunSpec, container: Container): HostConfig {
  const { memoryBytes, cpuMs, pids } = spec.limits;
  const cpuSeconds = Math.ceil(cpuMs / 1000);
  return {
    NetworkMode: "none",
    ReadonlyRootfs: true,
    Tmpfs: { "/tmp": `${SCRATCH},mode=1777`, "/work": `${SCRATCH},mode=0700,uid=65532,gid=65532` },
    CapDrop: ["ALL"],
    SecurityOpt: ["no-new-privileges", `seccomp=${container.seccomp}`],
    IpcMode: "none",
    CgroupnsMode: "private",
    Memory: memoryBytes,
    MemorySwap: memoryBytes, // of both together: no swap
    NanoCpus: 1_000_000_000,
    PidsLimit: pids + 1, // the init process is ours
    Ulimits: [
      { Name: "core", Soft: 0, Hard: 0 },
      { Name: "nofile", Soft: 1024, Hard: 1024 },
      { Name: "fsize", Soft: 64 << 20, Hard: 64 << 20 },
      // Of each process; of all of them together the meter sees to it.
      { Name: "cpu", Soft: cpuSeconds, Hard: cpuSeconds + 1 },
    ],
    // The first to go when the machine itself runs out.
    OomScoreAdj: 1000,
    // As the first process a program would ignore signals that it does not handle, and leave zombies.
    Init: true,
    LogConfig: { Type: "none", Config: {} },
    // The exit code would go with it.
    AutoRemove: false,
    ...(container.cgroupParent === undefined ? {} : { CgroupParent: container.cgroupParent }),
    ...(container.runtime === undefined ? {} : { Runtime: container.runtime }),
  };
}

import type { ContainerCreateOptions } from "dockerode";

/** Who the sandboxed program is; also in the images' /etc/passwd. */
const USER = "65532:65532";
const SCRATCH = "rw,nosuid,nodev,noexec,size=64m";
/** Where a sandbox finds the way out, if it has one. */
export const EGRESS_MOUNT = "/run/interlock";

/** All that makes one sandbox differ from another before a call is known: what a pool may keep ready. */
export type SandboxKind = {
  /** By digest: never a tag, which anyone who reaches the engine can move. */
  readonly imageId: string;
  /** undefined is the engine's default, runc. */
  readonly runtime: string | undefined;
  readonly memoryBytes: number;
  readonly pids: number;
  /** It can have a way out, once a call is granted one. */
  readonly egress: boolean;
  /** Its runtime sets up no control groups: its processes are put into ours. */
  readonly adopt: boolean;
};

export type Container = SandboxKind & {
  readonly name: string;
  /** The profile itself: the engine's API takes no path. */
  readonly seccomp: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Where it is accounted; undefined leaves it to the engine. */
  readonly cgroupParent: string | undefined;
  /** The host's directory for the egress socket; only with `egress`. */
  readonly egressFolder: string | undefined;
  /** The harness ends itself after so long, whatever becomes of the runner. */
  readonly lifetimeSeconds: number;
};

/** All that confines a container, in one place. Nothing of a call gets in here. */
export function createOptions(container: Container): ContainerCreateOptions {
  return {
    name: container.name,
    Image: container.imageId,
    Cmd: ["/harness", String(container.lifetimeSeconds)],
    Entrypoint: [],
    User: USER,
    WorkingDir: "/work",
    Hostname: "sandbox",
    Env: [],
    Labels: { ...container.labels },
    OpenStdin: true,
    StdinOnce: true, // the harness ends with the runner's connection
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Tty: false,
    NetworkDisabled: true,
    HostConfig: hostConfig(container),
  };
}

/** The types know no CgroupnsMode; the engine does. */
type HostConfig = ContainerCreateOptions["HostConfig"] & { readonly CgroupnsMode: "private" };

function hostConfig(container: Container): HostConfig {
  const { memoryBytes, pids, egressFolder, cgroupParent, runtime } = container;
  return {
    NetworkMode: "none",
    ReadonlyRootfs: true,
    Tmpfs: { "/tmp": `${SCRATCH},mode=1777`, "/work": `${SCRATCH},mode=0700,uid=65532,gid=65532` },
    CapDrop: ["ALL"],
    CapAdd: [],
    GroupAdd: [],
    Devices: [],
    Binds: [],
    Privileged: false,
    PidMode: "",
    SecurityOpt: ["no-new-privileges", `seccomp=${container.seccomp}`],
    IpcMode: "none",
    CgroupnsMode: "private",
    Memory: memoryBytes,
    MemorySwap: memoryBytes, // of both together: no swap
    NanoCpus: 1_000_000_000,
    PidsLimit: pids + harnessPids(container),
    Ulimits: [
      { Name: "core", Soft: 0, Hard: 0 },
      { Name: "nofile", Soft: 1024, Hard: 1024 },
      { Name: "fsize", Soft: 64 << 20, Hard: 64 << 20 },
    ],
    // Before anything else on the machine when that runs out of memory; the harness gives its programs 1000.
    OomScoreAdj: 900,
    LogConfig: { Type: "none", Config: {} },
    // The exit code would go with it.
    AutoRemove: false,
    Mounts:
      egressFolder === undefined
        ? []
        : [
            {
              Type: "bind",
              Source: egressFolder,
              Target: EGRESS_MOUNT,
              ReadOnly: true,
              BindOptions: { Propagation: "rprivate" },
            },
          ],
    ...(cgroupParent === undefined ? {} : { CgroupParent: cgroupParent }),
    ...(runtime === undefined ? {} : { Runtime: runtime }),
  };
}

/** The harness, and its forwarder. */
function harnessPids({ egress }: SandboxKind): number {
  return egress ? 2 : 1;
}

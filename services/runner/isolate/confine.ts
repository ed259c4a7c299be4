import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Writable } from "node:stream";
import { guestSource } from "./guest-source.ts";
import { inlined } from "./inline.ts";
import { syscallFilter } from "./seccomp.ts";

/**
 * What stands around a worker process besides V8. Each measure is tried once, when the runner starts: what this
 * machine allows is applied to every worker, what it does not is named in the capability and in every result.
 *
 *   no-generated-code  --jitless: no machine code is made from what a program says, so no WebAssembly either
 *   no-environment     an empty environment
 *   no-privileges      uid and gid of nobody, no capabilities, no new privileges
 *   no-new-privileges  where that cannot be: the runner's own user, which can gain nothing
 *   memory-hard-limit  RLIMIT_DATA, for what grows between two looks at it
 *   own-namespaces     user, mount, process, network, IPC, host name and cgroup namespaces of its own
 *   no-network         its network namespace holds nothing, not even a loopback that is up
 *   empty-root         its root holds Node, the libraries it loads and isolated-vm, read-only; no /proc, no /dev
 *   syscall-filter     seccomp: nothing that opens a socket, starts a process, traces or mounts (seccomp.ts)
 *
 * Node's own permission model stands behind empty-root: not even a read.
 */

export type Confinement = {
  /** Program and arguments of a worker. */
  readonly argv: readonly [string, ...string[]];
  /** What bwrap reads from descriptor 3 before it starts the worker; undefined where there is no filter. */
  readonly filter: Uint8Array | undefined;
  /** RLIMIT_DATA of a worker, bytes. */
  readonly dataBytes: number;
  readonly enforced: readonly string[];
  readonly missing: readonly string[];
};

/** `jit`: V8 may make machine code, which WebAssembly needs; faster, and more of V8 for a program to attack. */
export type Profile = { readonly jit: boolean };

/** The largest memory limit of a program that RLIMIT_DATA leaves room for. */
export const MAX_MEMORY_BYTES = 256 << 20;
/** Data a worker process may hold: Node itself, a program at the largest memory limit, and copies in passing. */
const RLIMIT_DATA_BYTES = 448 << 20;
/** Node does not start with less than 400 MB of it when it generates code. */
const RLIMIT_DATA_JIT_BYTES = 896 << 20;

/** Runs as a worker would and says what goes wrong, in one line; undefined when nothing does. */
export type TryOut = (argv: readonly string[], filter: Uint8Array | undefined) => Promise<string | undefined>;

/** @throws Error saying what is missing when workers cannot run here at all. */
export async function planConfinement({ jit }: Profile, attempt: TryOut = tryOut): Promise<Confinement> {
  const addon = addonPath();
  const flags = jit ? COMMON_FLAGS : ["--jitless", ...COMMON_FLAGS];
  const dataBytes = jit ? RLIMIT_DATA_JIT_BYTES : RLIMIT_DATA_BYTES;
  const measures = measuresFor(dataBytes, addon);
  const around = await measuresThatHold(measures, [process.execPath, ...flags, "--eval", TRIAL, addon], attempt);
  const worker = inlined(join(import.meta.dirname, "worker.ts"));
  const inner = [process.execPath, ...flags, "--eval", worker, addon, guestSource()];
  const [command = process.execPath, ...args] = [...around.prefix, ...inner];
  return {
    argv: [command, ...args],
    filter: around.filter,
    dataBytes,
    enforced: [...ALWAYS, ...(jit ? [] : ["no-generated-code"]), ...around.enforced],
    missing: around.missing,
  };
}

const ALWAYS = ["process-per-tenant", "wall-clock", "cpu-limit", "memory-limit", "no-files", "no-environment"];

const COMMON_FLAGS = [
  "--single-threaded",
  "--no-node-snapshot",
  "--no-warnings",
  "--permission",
  "--allow-addons",
  "--input-type=module",
] as const;

/** Does what a worker needs before it can run anything. */
const TRIAL = `
  const addon = { exports: {} };
  process.dlopen(addon, process.argv[1]);
  new addon.exports.ivm.Isolate({ memoryLimit: 8 }).dispose();`;

/** A command that replaces itself by what follows it, so that no shell stands between. */
type Way = {
  readonly holds: readonly string[];
  readonly prefix: readonly string[];
  /** What needs the privileges that others give up stands before them. */
  readonly first?: true;
  readonly filter?: Uint8Array;
};
type Measure = { readonly wanted: readonly string[]; readonly ways: readonly Way[] };

const UNTIL_PARENT_DIES = ["--no-new-privs", "--pdeathsig", "KILL", "--"];
const AS_NOBODY = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];

/** Each measure's ways, best first. */
function measuresFor(dataBytes: number, addon: string): readonly Measure[] {
  const limits = ["prlimit", `--data=${dataBytes}`, "--core=0", "--nofile=64", "--"];
  const namespaces = ["own-namespaces", "no-network", "empty-root"];
  const filter = syscallFilter();
  const boxed = (more: readonly string[]): string[] => [...BWRAP, ...more, ...rootHolding(addon), "--"];
  const withFilter: Way[] =
    filter === undefined
      ? []
      : [{ holds: [...namespaces, "syscall-filter"], prefix: boxed(["--seccomp", "3"]), filter }];
  return [
    {
      wanted: ["no-privileges"],
      ways: [
        { holds: ["no-privileges"], prefix: ["setpriv", ...AS_NOBODY, ...UNTIL_PARENT_DIES] },
        { holds: ["no-new-privileges"], prefix: ["setpriv", ...UNTIL_PARENT_DIES] },
      ],
    },
    {
      wanted: ["memory-hard-limit"],
      ways: [
        // And first in line when the machine itself runs out of memory.
        { holds: ["memory-hard-limit"], prefix: ["choom", "--adjust", "1000", "--", ...limits] },
        { holds: ["memory-hard-limit"], prefix: limits },
      ],
    },
    {
      wanted: [...namespaces, "syscall-filter"],
      ways: [
        ...withFilter,
        { holds: namespaces, prefix: boxed([]) },
        { holds: ["no-network"], prefix: ["unshare", "--net", "--ipc", "--"], first: true },
        { holds: ["no-network"], prefix: ["unshare", "--user", "--map-current-user", "--net", "--ipc", "--"] },
      ],
    },
  ];
}

const BWRAP = [
  ...["bwrap", "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"],
  ...["--uid", "65534", "--gid", "65534", "--as-pid-1", "--die-with-parent", "--new-session"],
];

/** Exactly the files a worker maps when it starts. */
function rootHolding(addon: string): string[] {
  const files = [process.execPath, addon, ...loadedLibraries()];
  return [...files.flatMap((file) => ["--ro-bind", file, file]), "--remount-ro", "/", "--chdir", "/"];
}

/** The shared libraries of this process, which runs the same Node as a worker. */
function loadedLibraries(): string[] {
  const report = process.report as NodeJS.ProcessReport & { excludeNetwork: boolean };
  const before = report.excludeNetwork;
  report.excludeNetwork = true; // or it resolves the name of every peer
  try {
    const { sharedObjects = [] } = report.getReport() as { readonly sharedObjects?: readonly string[] };
    return sharedObjects.filter((path) => /^\/(usr\/)?lib(32|64)?\//.test(path));
  } finally {
    report.excludeNetwork = before;
  }
}

type Around = {
  readonly prefix: readonly string[];
  readonly filter: Uint8Array | undefined;
  readonly enforced: readonly string[];
  readonly missing: readonly string[];
};

/**
 * The measures are tried together, as they will be used: one may rule out another. First all the best at once, with
 * the real thing, because starting it is most of the time this takes. Only where that fails is each tried by itself.
 */
async function measuresThatHold(
  measures: readonly Measure[],
  trial: readonly string[],
  attempt: TryOut,
): Promise<Around> {
  const best = measures.flatMap(({ ways }) => ways.slice(0, 1));
  const whole = around(measures, best);
  if ((await attempt([...whole.prefix, ...trial], whole.filter)) === undefined) return whole;
  const problem = await attempt(trial, undefined);
  if (problem !== undefined) throw new Error(problem);
  const chosen: Way[] = [];
  for (const { ways } of measures) {
    for (const way of ways) {
      const { prefix, filter } = around(measures, [...chosen, way]);
      if ((await attempt([...prefix, ...trial], filter)) !== undefined) continue;
      chosen.push(way);
      break;
    }
  }
  return around(measures, chosen);
}

function around(measures: readonly Measure[], ways: readonly Way[]): Around {
  const ordered = [...ways.filter((way) => way.first), ...ways.filter((way) => !way.first)];
  const enforced = ways.flatMap((way) => way.holds);
  const wanted = measures.flatMap((measure) => measure.wanted);
  return {
    prefix: ordered.flatMap((way) => way.prefix),
    filter: ways.find((way) => way.filter !== undefined)?.filter,
    enforced,
    missing: wanted.filter((name) => !enforced.includes(name)),
  };
}

/** Starts what is confined so: nothing but two pipes, and one on which bwrap finds its filter and closes it. */
export function startConfined(
  [command = "", ...args]: readonly string[],
  filter: Uint8Array | undefined,
  stderr: "pipe" | "ignore",
): ChildProcess {
  const stdio: ("pipe" | "ignore")[] = ["pipe", "pipe", stderr, ...(filter === undefined ? [] : ["pipe" as const])];
  const child = spawn(command, args, { env: {}, cwd: "/", stdio });
  const pipe = child.stdio[3] as Writable | undefined;
  pipe?.on("error", () => {}); // the child's own end says why
  pipe?.end(filter);
  return child;
}

const TRIAL_MS = 10_000;

export const tryOut: TryOut = async (argv, filter) => {
  const child = startConfined(argv, filter, "pipe");
  const clock = setTimeout(() => child.kill("SIGKILL"), TRIAL_MS);
  child.stdin?.end();
  child.stdout?.resume();
  let said = "";
  child.stderr?.on("data", (chunk: Buffer) => (said = (said + chunk.toString("utf8")).slice(0, 8192)));
  return await new Promise<string | undefined>((resolve) => {
    const done = (problem: string | undefined): void => {
      clearTimeout(clock);
      resolve(problem);
    };
    child.once("error", (error) => done(error.message));
    child.once("close", (code, signal) => {
      const lines = said.split("\n").filter((line) => line !== "");
      const found = lines.find((line) => /^(\w*Error\b|\S+: )/.test(line)) ?? lines[0];
      done(code === 0 ? undefined : (found ?? `it ended with ${signal ?? `exit code ${code}`}`));
    });
  });
};

/** Resolved here, so that a worker need not read files to find it. */
function addonPath(): string {
  const found = createRequire(import.meta.url).resolve("isolated-vm");
  const nodeGypBuild = createRequire(found)("node-gyp-build") as { path: (directory: string) => string };
  return nodeGypBuild.path(dirname(found));
}

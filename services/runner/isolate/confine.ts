import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

/**
 * What stands around a worker process besides V8. Each measure is tried once, when the runner starts: what this
 * machine allows is applied to every worker, what it does not is named in the capability and in every result.
 *
 *   no-webassembly     --jitless: no machine code is generated from what a program says
 *   no-files           Node's permission model: not even a read
 *   no-environment     an empty environment
 *   no-network         a network namespace with nothing in it
 *   no-privileges      uid and gid of nobody, no capabilities, no new privileges
 *   memory-hard-limit  RLIMIT_DATA, for what grows outside V8's own limit
 */

export type Confinement = {
  /** Program and arguments of a worker. */
  readonly argv: readonly [string, ...string[]];
  readonly enforced: readonly string[];
  readonly missing: readonly string[];
};

/** Data a worker process may hold: Node itself, a program at the largest memory limit, and copies in passing. */
export const RLIMIT_DATA_BYTES = 448 << 20;
/** The largest memory limit of a program that RLIMIT_DATA leaves room for. */
export const MAX_MEMORY_BYTES = 256 << 20;

/** @throws Error saying what is missing when workers cannot run here at all. */
export async function planConfinement(): Promise<Confinement> {
  const [program, network, privileges, memory] = await Promise.all([
    inlinedWorker(),
    firstThatWorks(NO_NETWORK),
    firstThatWorks(NO_PRIVILEGES),
    firstThatWorks(HARD_MEMORY),
  ]);
  const measures = { "no-network": network, "no-privileges": privileges, "memory-hard-limit": memory };
  const held = Object.entries(measures).filter(([, prefix]) => prefix !== undefined);
  const node = [process.execPath, ...NODE_FLAGS, "--eval", program, addonPath()];
  const [command = process.execPath, ...args] = [...held.flatMap(([, prefix]) => prefix ?? []), ...node];
  return {
    argv: [command, ...args],
    enforced: [...ALWAYS, ...held.map(([name]) => name)],
    missing: Object.keys(measures).filter((name) => !held.some(([heldName]) => heldName === name)),
  };
}

const ALWAYS = [
  "process-per-tenant",
  "wall-clock",
  "cpu-limit",
  "memory-limit",
  "no-webassembly",
  "no-files",
  "no-environment",
];

const NODE_FLAGS = [
  "--jitless",
  "--no-node-snapshot",
  "--no-warnings",
  "--permission",
  "--allow-addons",
  "--input-type=module",
] as const;

/** Each measure's ways, best first. They replace themselves by what follows them, so the process keeps its id. */
const NO_NETWORK = [
  ["unshare", "--net", "--ipc", "--"],
  ["unshare", "--user", "--map-current-user", "--net", "--ipc", "--"],
];
const DEATH_WITH_PARENT = ["--no-new-privs", "--pdeathsig", "KILL"];
const NO_PRIVILEGES = [
  [
    ...["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"],
    ...[...DEATH_WITH_PARENT, "--"],
  ],
  ["setpriv", ...DEATH_WITH_PARENT, "--"],
];
const HARD_MEMORY = [["prlimit", `--data=${RLIMIT_DATA_BYTES}`, "--core=0", "--nofile=64", "--"]];

const run = promisify(execFile);

async function firstThatWorks(ways: readonly (readonly string[])[]): Promise<readonly string[] | undefined> {
  for (const way of ways) {
    const [command = "", ...args] = way;
    try {
      await run(command, [...args, process.execPath, "--version"], { timeout: 5_000 });
      return way;
    } catch {
      // the next one, or none: reported as missing
    }
  }
  return undefined;
}

async function inlinedWorker(): Promise<string> {
  const here = import.meta.dirname;
  const args = ["--no-warnings", join(here, "inline.ts"), join(here, "worker.ts")];
  const { stdout } = await run(process.execPath, args, { env: {}, maxBuffer: 1 << 20 });
  return stdout;
}

/** Resolved here, so that a worker need not read files to find it. */
function addonPath(): string {
  const found = createRequire(import.meta.url).resolve("isolated-vm");
  const nodeGypBuild = createRequire(found)("node-gyp-build") as { path: (directory: string) => string };
  return nodeGypBuild.path(dirname(found));
}

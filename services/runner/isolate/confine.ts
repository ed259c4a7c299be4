import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { inlined } from "./inline.ts";

/**
 * What stands around a worker process besides V8. Each measure is tried once, when the runner starts: what this
 * machine allows is applied to every worker, what it does not is named in the capability and in every result.
 *
 *   no-webassembly     --jitless: no machine code is generated from what a program says
 *   no-files           Node's permission model: not even a read
 *   no-environment     an empty environment
 *   no-network         a network namespace with nothing in it
 *   no-privileges      uid and gid of nobody, no capabilities, no new privileges
 *   no-new-privileges  where that cannot be: the runner's own user, which can gain nothing
 *   memory-hard-limit  RLIMIT_DATA, for what grows between two looks at it
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
  const addon = addonPath();
  const around = await measuresThatHold([process.execPath, ...NODE_FLAGS, "--eval", TRIAL, addon]);
  const worker = inlined(join(import.meta.dirname, "worker.ts"));
  const [command = process.execPath, ...args] = [
    ...around.prefix,
    ...[process.execPath, ...NODE_FLAGS, "--eval", worker, addon],
  ];
  return { argv: [command, ...args], enforced: [...ALWAYS, ...around.enforced], missing: around.missing };
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

/** Does what a worker needs before it can run anything. */
const TRIAL = `
  const addon = { exports: {} };
  process.dlopen(addon, process.argv[1]);
  new addon.exports.ivm.Isolate({ memoryLimit: 8 }).dispose();`;

/** A command that replaces itself by what follows it, so that the process keeps its id. */
type Way = { readonly holds: string; readonly prefix: readonly string[] };
type Measure = { readonly wanted: string; readonly ways: readonly Way[] };

const UNTIL_PARENT_DIES = ["--no-new-privs", "--pdeathsig", "KILL", "--"];
const AS_NOBODY = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];

/** Each measure's ways, best first. */
const MEASURES: readonly Measure[] = [
  {
    wanted: "no-network",
    ways: [
      { holds: "no-network", prefix: ["unshare", "--net", "--ipc", "--"] },
      { holds: "no-network", prefix: ["unshare", "--user", "--map-current-user", "--net", "--ipc", "--"] },
    ],
  },
  {
    wanted: "no-privileges",
    ways: [
      { holds: "no-privileges", prefix: ["setpriv", ...AS_NOBODY, ...UNTIL_PARENT_DIES] },
      { holds: "no-new-privileges", prefix: ["setpriv", ...UNTIL_PARENT_DIES] },
    ],
  },
  {
    wanted: "memory-hard-limit",
    ways: [
      {
        holds: "memory-hard-limit",
        // And first in line when the machine itself runs out of memory.
        prefix: [
          ...["choom", "--adjust", "1000", "--"],
          ...["prlimit", `--data=${RLIMIT_DATA_BYTES}`, "--core=0", "--nofile=64", "--"],
        ],
      },
      {
        holds: "memory-hard-limit",
        prefix: ["prlimit", `--data=${RLIMIT_DATA_BYTES}`, "--core=0", "--nofile=64", "--"],
      },
    ],
  },
];

type Around = { readonly prefix: readonly string[]; readonly enforced: string[]; readonly missing: string[] };

/**
 * The measures are tried together, as they will be used: one may rule out another. With a command that does nothing
 * first, and then once with the real thing, because starting it is most of the time this takes. Only where that fails,
 * say because nobody may read Node's own files, is each tried with the real thing.
 */
async function measuresThatHold(trial: readonly string[]): Promise<Around> {
  const quick = await assemble(["true"]);
  if ((await problemOf([...quick.prefix, ...trial])) === undefined) return quick;
  const problem = await problemOf(trial);
  if (problem !== undefined) throw new Error(problem);
  return assemble(trial);
}

async function assemble(trial: readonly string[]): Promise<Around> {
  let prefix: readonly string[] = [];
  const enforced: string[] = [];
  const missing: string[] = [];
  for (const { wanted, ways } of MEASURES) {
    const way = await firstThatWorks(ways, prefix, trial);
    prefix = [...prefix, ...(way?.prefix ?? [])];
    if (way !== undefined) enforced.push(way.holds);
    if (way?.holds !== wanted) missing.push(wanted);
  }
  return { prefix, enforced, missing };
}

async function firstThatWorks(
  ways: readonly Way[],
  before: readonly string[],
  trial: readonly string[],
): Promise<Way | undefined> {
  for (const way of ways) if ((await problemOf([...before, ...way.prefix, ...trial])) === undefined) return way;
  return undefined;
}

const run = promisify(execFile);

/** What goes wrong when this runs as a worker would, in one line; undefined when nothing does. */
async function problemOf([command = "", ...args]: readonly string[]): Promise<string | undefined> {
  try {
    await run(command, args, { env: {}, cwd: "/", timeout: 10_000, killSignal: "SIGKILL" });
    return undefined;
  } catch (error) {
    const lines = (error instanceof Error ? error.message : String(error)).split("\n");
    return lines.find((line) => /^(\w*Error\b|\S+: )/.test(line)) ?? lines[0] ?? "";
  }
}

/** Resolved here, so that a worker need not read files to find it. */
function addonPath(): string {
  const found = createRequire(import.meta.url).resolve("isolated-vm");
  const nodeGypBuild = createRequire(found)("node-gyp-build") as { path: (directory: string) => string };
  return nodeGypBuild.path(dirname(found));
}

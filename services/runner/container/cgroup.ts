import { access, constants, mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Meter } from "./meter.ts";
import { ownerState } from "./owner.ts";

/**
 * A control group around one container, for what the engine cannot tell: a container's own is gone with its last
 * process, ours stays until it was read. Needs version 1 of control groups, on this machine, and root.
 */
export type RunCgroup = Meter & {
  /** For the engine: the parent of the container's own. */
  readonly path: string;
  /** Takes a process and all below it in, where the engine's runtime sets up no group of its own. */
  adopt(pid: number, bounds: { readonly memoryBytes: number; readonly pids: number }): Promise<void>;
  /** From here on the peak is that of what comes: where a sandbox waited for its call. */
  resetPeak(): Promise<void>;
  /** Kills all in it, without the engine. */
  kill(): Promise<void>;
  /** After the container is gone. */
  remove(): Promise<void>;
};

export type CgroupRoot = AsyncDisposable & { open(run: string): RunCgroup };

const MOUNT = "/sys/fs/cgroup";
const PREFIX = "interlock-";
/** The kernel's default period: of each, this much is one whole core. */
const CPU_PERIOD_US = 100_000;

/**
 * Removes what dead owners left, and makes room for this one's.
 * undefined where control groups cannot be read and removed: usage is then sampled through the engine.
 */
export async function openCgroupRoot(owner: string): Promise<CgroupRoot | undefined> {
  const controllers = await writableControllers();
  if (!["cpuacct", "memory", "pids"].every((name) => controllers.includes(name))) return undefined;
  const mounts = controllers.map((controller) => join(MOUNT, controller));
  for (const directory of (await Promise.all(mounts.map(directoriesIn))).flat()) {
    const name = basename(directory);
    if (name.startsWith(PREFIX) && ownerState(name.slice(PREFIX.length)) === "dead") await removeEmpty(directory);
  }
  const root = `/${PREFIX}${owner}`;
  return {
    open: (run) => openRun(mounts, `${root}/${run}`),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(mounts.map((mount) => rmdir(join(mount, root)).catch(() => {}))); // another backend's too
    },
  };
}

async function writableControllers(): Promise<string[]> {
  const names = await readdir(MOUNT).catch(() => []);
  const writable = await Promise.all(
    names.map(async (name) => {
      try {
        await access(join(MOUNT, name, "cgroup.procs"), constants.W_OK);
        return true;
      } catch {
        return false;
      }
    }),
  );
  return names.filter((_, index) => writable[index]);
}

function openRun(mounts: readonly string[], path: string): RunCgroup {
  const read = (controller: string, file: string): Promise<number> => readNumber(join(MOUNT, controller, path, file));
  return {
    path,
    sample: async () => {
      const [cpuNs, peakMemoryBytes] = await Promise.all([
        read("cpuacct", "cpuacct.usage"),
        read("memory", "memory.max_usage_in_bytes"),
      ]);
      return { cpuMs: Math.ceil(cpuNs / 1e6), peakMemoryBytes };
    },
    adopt: async (pid, { memoryBytes, pids }) => {
      await Promise.all(mounts.map((mount) => mkdir(join(mount, path), { recursive: true })));
      const write = (controller: string, file: string, value: number): Promise<void> =>
        writeFile(join(MOUNT, controller, path, file), String(value));
      await write("memory", "memory.limit_in_bytes", memoryBytes);
      await write("memory", "memory.memsw.limit_in_bytes", memoryBytes).catch(() => {}); // a kernel without swap accounting
      await write("pids", "pids.max", pids);
      if (mounts.includes(join(MOUNT, "cpu"))) await write("cpu", "cpu.cfs_quota_us", CPU_PERIOD_US);
      for (const each of await descendants(pid)) {
        await Promise.all(
          mounts.map((mount) => writeFile(join(mount, path, "cgroup.procs"), String(each)).catch(() => {})),
        );
      }
    },
    resetPeak: () => writeFile(join(MOUNT, "memory", path, "memory.max_usage_in_bytes"), "0").catch(() => {}),
    kill: () => killAll(join(MOUNT, "pids", path)),
    remove: async () => {
      await Promise.all(mounts.map((mount) => removeEmpty(join(mount, path))));
    },
  };
}

/** 0 before the engine has made the group, and for a file that this kernel lacks. */
async function readNumber(file: string): Promise<number> {
  try {
    return Number(await readFile(file, "utf8"));
  } catch {
    return 0;
  }
}

async function killAll(directory: string): Promise<void> {
  // Again until it is empty: a process may fork between the reading and the signal.
  for (let round = 0; round < 100; round++) {
    const pids = await pidsUnder(directory);
    if (pids.length === 0) return;
    for (const pid of pids) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // ended meanwhile
      }
    }
  }
}

async function pidsUnder(directory: string): Promise<number[]> {
  const text = await readFile(join(directory, "cgroup.procs"), "utf8").catch(() => "");
  // 0 is a process of another namespace, and to signal 0 is to signal ourselves.
  const own = text
    .split("\n")
    .map(Number)
    .filter((pid) => pid > 1);
  const below = await Promise.all((await directoriesIn(directory)).map(pidsUnder));
  return [...own, ...below.flat()];
}

/** The process itself first: what it starts meanwhile is born where it is. */
async function descendants(pid: number): Promise<number[]> {
  const parents = new Map<number, number>();
  for (const name of await readdir("/proc")) {
    const stat = /^\d+$/.test(name) ? await readFile(`/proc/${name}/stat`, "utf8").catch(() => "") : "";
    const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
    if (parent > 0) parents.set(Number(name), parent);
  }
  const below = [pid];
  for (const each of below) below.push(...[...parents].filter(([, parent]) => parent === each).map(([child]) => child));
  return below;
}

async function removeEmpty(directory: string): Promise<void> {
  await Promise.all((await directoriesIn(directory)).map(removeEmpty));
  await rmdir(directory).catch(() => {}); // in use, or gone
}

async function directoriesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(directory, entry.name));
}

import { readFileSync, readlinkSync } from "node:fs";

/**
 * Names this process among all that ever ran, so that what a dead one left can be told from what a live one uses: two
 * runners of one id may share an engine, as in tests beside a running Interlock.
 */
export function thisOwner(): string {
  return `${place()}-${process.pid}-${startedAt(process.pid) ?? 0}`;
}

/** elsewhere: another machine or container, whose processes cannot be seen from here. */
export function ownerState(owner: string): "alive" | "dead" | "elsewhere" {
  const match = /^(.+)-(\d+)-(\d+)$/.exec(owner);
  if (match === null) return "dead";
  const [, where, pid, started] = match;
  if (where !== place()) return "elsewhere";
  return startedAt(Number(pid)) === Number(started) ? "alive" : "dead";
}

/** The boot of the machine and the pid namespace in it. */
function place(): string {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").slice(0, 8);
    return `${boot}.${/\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? ""}`;
  } catch {
    return "unknown";
  }
}

function startedAt(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The name, in parentheses, may hold anything; the 22nd field is the 20th after it.
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
  } catch {
    return undefined;
  }
}

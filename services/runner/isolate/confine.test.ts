import { afterEach, describe, expect, it, vi } from "vitest";
import { planConfinement } from "./confine.ts";

/** What execFile is allowed to start in a test: a machine that lacks something. */
const machine = vi.hoisted(() => ({ refuses: (_: readonly string[]): boolean => false, tried: 0 }));

vi.mock("node:child_process", async (importOriginal) => {
  const real = await importOriginal<typeof import("node:child_process")>();
  const { promisify } = await import("node:util");
  const execFile = Object.assign(() => {}, {
    [promisify.custom]: async (command: string, args: readonly string[], options: object) => {
      machine.tried++;
      if (machine.refuses([command, ...args])) throw new Error(`Command failed: ${command}\n${command}: not here`);
      return promisify(real.execFile)(command, [...args], options);
    },
  });
  return { ...real, execFile };
});

afterEach(() => {
  machine.refuses = () => false;
  machine.tried = 0;
});

const MEASURES = ["no-network", "no-privileges", "memory-hard-limit"];

describe("what holds and what does not is said as it is:", () => {
  const root = process.getuid?.() === 0;
  const lacks: [what: string, refuses: (argv: readonly string[]) => boolean, missing: string[], holds: string[]][] = [
    ["no way into a network namespace", (argv) => argv.includes("unshare"), ["no-network"], []],
    ["nobody's user id", (argv) => argv.includes("65534"), ["no-privileges"], ["no-new-privileges"]],
    ["no setpriv", (argv) => argv.includes("setpriv"), ["no-privileges"], []],
    ["no choom", (argv) => argv.includes("choom"), [], ["memory-hard-limit"]],
    ["no prlimit", (argv) => argv.includes("prlimit"), ["memory-hard-limit"], []],
    [
      "nothing of all that",
      (argv) => ["unshare", "setpriv", "prlimit"].some((tool) => argv.includes(tool)),
      MEASURES,
      [],
    ],
    [
      "a network namespace and nobody's user id, but not both at once",
      (argv) => argv.includes("unshare") && argv.includes("65534"),
      ["no-privileges"],
      ["no-network", "no-new-privileges"],
    ],
    [
      "files that nobody may read, which only starting the real thing shows",
      (argv) => argv.includes("65534") && argv.includes("--jitless"),
      ["no-privileges"],
      ["no-network", "no-new-privileges", "memory-hard-limit"],
    ],
  ];
  it.runIf(root).each(lacks)("%s", async (_, refuses, missing, holds) => {
    machine.refuses = refuses;
    const plan = await planConfinement();
    expect(plan.missing).toEqual(missing);
    expect(plan.enforced).toEqual(expect.arrayContaining(holds));
    for (const name of missing) expect(plan.enforced).not.toContain(name);
    expect(refuses(plan.argv)).toBe(false);
  });

  it("on this machine, within a few tries", async () => {
    const { enforced, missing } = await planConfinement();
    expect(MEASURES.filter((name) => !enforced.includes(name))).toEqual(missing);
    expect(machine.tried).toBeLessThanOrEqual(2 * MEASURES.length + 1);
  });
});

it("where Node cannot start a worker at all, says why in a line", async () => {
  machine.refuses = (argv) => argv.includes("--jitless");
  await expect(planConfinement()).rejects.toThrow(/^\S+: not here$/);
});

import { describe, expect, it } from "vitest";
import { planConfinement, type TryOut, tryOut } from "./confine.ts";

/** What is tried on this machine, as if it lacked something. */
function lacking(refuses: (argv: readonly string[]) => boolean) {
  const tried: (readonly string[])[] = [];
  const attempt: TryOut = async (argv, filter) => {
    tried.push(argv);
    return refuses(argv) ? `${argv[0]}: not here` : await tryOut(argv, filter);
  };
  return { tried, attempt };
}

const PLAIN = { jit: false };
const BOXED = ["own-namespaces", "no-network", "empty-root", "syscall-filter"];
const WANTED = ["no-privileges", "memory-hard-limit", ...BOXED];

describe("what holds and what does not is said as it is:", () => {
  const root = process.getuid?.() === 0;
  const lacks: [what: string, refuses: (argv: readonly string[]) => boolean, missing: string[], holds: string[]][] = [
    ["no syscall filter", (argv) => argv.includes("--seccomp"), ["syscall-filter"], ["own-namespaces", "empty-root"]],
    [
      "no bwrap",
      (argv) => argv.includes("bwrap"),
      ["own-namespaces", "empty-root", "syscall-filter"],
      ["no-network", "no-privileges"],
    ],
    ["no namespaces at all", (argv) => argv.includes("bwrap") || argv.includes("unshare"), BOXED, ["no-privileges"]],
    ["nobody's user id", (argv) => argv.includes("--reuid"), ["no-privileges"], ["no-new-privileges", "empty-root"]],
    ["no setpriv", (argv) => argv.includes("setpriv"), ["no-privileges"], BOXED],
    ["no choom", (argv) => argv.includes("choom"), [], ["memory-hard-limit"]],
    ["no prlimit", (argv) => argv.includes("prlimit"), ["memory-hard-limit"], BOXED],
    ["nothing of all that", (argv) => argv[0] !== process.execPath, WANTED, []],
  ];
  it.runIf(root).each(lacks)("%s", async (_, refuses, missing, holds) => {
    const { attempt } = lacking(refuses);
    const plan = await planConfinement(PLAIN, attempt);
    expect(plan.missing).toEqual(missing);
    expect(plan.enforced).toEqual(expect.arrayContaining(holds));
    for (const name of missing) expect(plan.enforced).not.toContain(name);
    expect(refuses(plan.argv)).toBe(false);
    expect(plan.filter === undefined).toBe(missing.includes("syscall-filter"));
  });

  it("on this machine, in one try where all of it holds", async () => {
    const { tried, attempt } = lacking(() => false);
    const { enforced, missing } = await planConfinement(PLAIN, attempt);
    expect(WANTED.filter((name) => !enforced.includes(name))).toEqual(missing);
    if (missing.length === 0) expect(tried.length).toBe(1);
  });
});

it("a worker that may generate code says that it may", async () => {
  const { enforced, argv } = await planConfinement({ jit: true });
  expect(enforced).not.toContain("no-generated-code");
  expect(argv).not.toContain("--jitless");
});

it("where Node cannot start a worker at all, says why in a line", async () => {
  const { attempt } = lacking((argv) => argv.includes("--jitless"));
  await expect(planConfinement(PLAIN, attempt)).rejects.toThrow(/^\S+: not here$/);
});

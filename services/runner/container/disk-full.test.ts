import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, readdirSync, rmdirSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import type { RunResult } from "../backend.ts";
import type { ContainerBackend } from "../container.ts";
import { openWorld, type World } from "../egress/test-world.ts";
import { says, tries } from "./hostile-kit.ts";
import { containersLabelled, docker, openTestBackend, runIn, shell, whyNoEngine } from "./test-engine.ts";

const skipped = await whyNoEngine();
const hasGvisor = skipped === "" && "runsc" in ((await docker.info()).Runtimes ?? {});
const FILL = "for name in a b; do head -c 48M /dev/zero > /work/$name || exit; done";
const roomy = { limits: { memoryBytes: 256 << 20 } };

/** What is written stays in the workspace of the tenant's session. */
const inSession = (backend: ContainerBackend, tenant: string) => {
  const principal = { tenant };
  const sandbox = { lifetime: "session" } as const;
  return {
    run: (code: string): Promise<RunResult> => runIn(backend, shell(code, { ...roomy, principal, sandbox })),
    upload: (path: string, content: string): Promise<RunResult> => {
      const argumentsJson = JSON.stringify({ path, content: Buffer.from(content).toString("base64") });
      const operation = { ...sandbox, operation: "upload" } as const;
      return runIn(backend, { image: "shell", command: [], ...roomy, argumentsJson, principal, sandbox: operation });
    },
  };
};

describe.each([
  { isolationClass: "runc", without: skipped },
  { isolationClass: "gvisor", without: hasGvisor ? "" : `the engine has no runtime runsc ${skipped}` },
] as const)("a sandbox of $isolationClass that is full $without", ({ isolationClass, without }) => {
  test.skipIf(without !== "")("tells its program ENOSPC, and what the program says of it is the result", async () => {
    await using backend = await openTestBackend();
    // In two files: a single one is bounded too.
    const fill =
      "def fill(place):\n  for name in 'ab':\n    with open(place + '/' + name, 'wb', 0) as f:\n" +
      "      for i in range(48): f.write(bytes(1 << 20))\n" +
      "tell({place: attempt(lambda: fill(place)) for place in ('/tmp', '/work')})";
    const deaf = shell(FILL, { ...roomy, isolationClass });
    const [told, ended, neighbour] = await Promise.all([
      runIn(backend, { ...tries(fill), ...roomy, isolationClass }),
      runIn(backend, deaf),
      runIn(backend, shell("echo x > /work/x && echo 1", { principal: { tenant: "neighbour" } })),
    ]);
    expect(told).toMatchObject(says({ "/tmp": "ENOSPC", "/work": "ENOSPC" }));
    expect(ended).toMatchObject({
      ...{ end: "exited", exitCode: 1, resultJson: "", error: "The program ended with exit code 1." },
      stderr: expect.stringContaining("No space left on device"),
    });
    expect(neighbour).toMatchObject(says(1));
  });
});

describe.skipIf(skipped !== "")(`a session's workspace that is full ${skipped}`, () => {
  test("takes an upload whole or not at all, and again once there is room", async () => {
    await using backend = await openTestBackend();
    const full = inSession(backend, "acme");
    const neighbour = inSession(backend, "neighbour");
    expect(await full.run(FILL)).toMatchObject({ end: "exited", exitCode: 1 });
    expect(await full.upload("more", "text")).toMatchObject({
      ...{ end: "exited", exitCode: 1, resultJson: "" },
      error: "more does not fit: the workspace is full.",
    });
    expect(await neighbour.upload("more", "text")).toMatchObject({ exitCode: 0, error: "" });
    expect(await full.run("ls -A; rm a b")).toMatchObject({ stdout: "a\nb\n" });
    expect(await full.upload("more", "text")).toMatchObject({ exitCode: 0, error: "" });
    expect(await full.run("cat more")).toMatchObject({ stdout: "text" });
  });
});

const notRoot = process.getuid?.() === 0 ? skipped : `only root can mount a small disk ${skipped}`;

describe.skipIf(notRoot !== "")(`the runner's own directory that is full ${notRoot}`, () => {
  let world: World;
  beforeAll(async () => {
    world = await openWorld();
  });
  afterAll(() => world?.[Symbol.asyncDispose]());

  const cases = [
    { name: "of files, so that a sandbox gets no directory", warm: 0, fill: (disk: Disk) => disk.fillFiles(0) },
    { name: "of bytes, so that it gets no certificates", warm: 0, fill: (disk: Disk) => disk.fillBytes() },
    { name: "of files, so that one that waited gets none", warm: 2, fill: (disk: Disk) => disk.fillFiles(0) },
    { name: "of files, so that it gets no socket", warm: 2, fill: (disk: Disk) => disk.fillFiles(1) },
  ];
  test.each(cases)("$name: refused before anything starts, and the pool recovers", async ({ warm, fill }) => {
    const runnerId = `test-${crypto.randomUUID()}`;
    const disk = openDisk();
    vi.stubEnv("TMPDIR", disk.path);
    onTestFinished(() => void vi.unstubAllEnvs());
    await using backend = await openTestBackend({
      ...{ runnerId, warm },
      egress: { resolve: world.resolve, extraCa: [world.ca] },
    });
    const outside = () =>
      runIn(backend, shell("curl -sS https://api.example.com/a", { egress: ["api.example.com:443"] }));
    const neighbour = () => runIn(backend, shell("echo 1", { principal: { tenant: "neighbour" } }));
    /** A call of each kind, and how many are ready after it. */
    const rested = async (): Promise<object> => {
      const said = [(await outside()).stdout, (await neighbour()).stdout];
      await backend.warmed();
      return { said, idle: backend.state().idle };
    };
    const asEver = { said: ["api.example.com GET /a", "1\n"], idle: warm };
    if (warm > 0) {
      expect(await rested()).toEqual(asEver);
      await expect.poll(() => disk.sandboxes(), { timeout: 10_000 }).toHaveLength(1); // the used one is removed behind its call
    }

    fill(disk);
    const refusal = { code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE" };
    await expect(outside()).rejects.toMatchObject({ ...refusal, message: expect.stringContaining("(ENOSPC)") });
    expect(await neighbour()).toMatchObject(says(1));

    disk.empty();
    await expect.poll(rested, { timeout: 15_000 }).toEqual(asEver);
    await backend[Symbol.asyncDispose]();
    expect(readdirSync(disk.path)).toEqual([]);
    expect(await containersLabelled(`interlock.runner=${runnerId}`)).toEqual([]);
  });
});

type Disk = ReturnType<typeof openDisk>;

/** In memory, of 2 MiB and 64 files, for the time of one test. */
function openDisk() {
  const path = mkdtempSync(join(tmpdir(), "interlock-disk-"));
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=2m,nr_inodes=64,mode=0755", "tmpfs", path]);
  onTestFinished(() => {
    execFileSync("umount", [path]);
    rmdirSync(path);
  });
  const filling = join(path, "filling");
  const untilFull = (write: () => void): void => {
    try {
      for (;;) write();
    } catch (error) {
      expect(error).toMatchObject({ code: "ENOSPC" });
    }
  };
  return {
    path,
    fillBytes: (): void => {
      const file = openSync(filling, "w");
      for (const size of [1 << 16, 1]) untilFull(() => void writeSync(file, Buffer.alloc(size)));
      closeSync(file);
    },
    /** All but so many. */
    fillFiles: (left: number): void => {
      mkdirSync(filling);
      const files: string[] = [];
      untilFull(() => {
        const file = join(filling, String(files.length));
        closeSync(openSync(file, "w"));
        files.push(file);
      });
      for (const file of files.slice(0, left)) rmSync(file);
    },
    empty: (): void => rmSync(filling, { recursive: true }),
    /** The directories of the sandboxes that have one. */
    sandboxes: (): string[] => readdirSync(path).flatMap((owner) => readdirSync(join(path, owner))),
  };
}

import { randomUUID } from "node:crypto";
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { ownerState } from "./owner.ts";
import {
  containersLabelled,
  docker,
  LOCK_FILE,
  openTestBackend,
  printed,
  python,
  runIn,
  shell,
  specOf,
  whyNoEngine,
} from "./test-engine.ts";

const skipped = await whyNoEngine();
const NOWHERE = `sha256:${"0".repeat(64)}`;

describe.skipIf(skipped !== "")(`images ${skipped}`, () => {
  const locks = JSON.parse(readFileSync(LOCK_FILE, "utf8"));
  const { shell: shellImage } = locks.images;
  const cases = [
    { name: "one that is not pinned", lock: { ...locks, images: { shell: shellImage } }, reason: "IMAGE_NOT_LOCKED" },
    {
      name: "one that the engine does not have",
      lock: { ...locks, images: { python: { id: NOWHERE, sbom: NOWHERE } } },
      reason: "SANDBOX_UNAVAILABLE",
    },
    {
      name: "a tag",
      lock: { ...locks, images: { python: { id: "python:3", sbom: NOWHERE } } },
      reason: "SANDBOX_UNAVAILABLE",
    },
    { name: "none at all", lock: undefined, reason: "SANDBOX_UNAVAILABLE" },
  ];
  test.each(cases)("refuses $name", async ({ lock, reason }) => {
    const folder = mkdtempSync(join(tmpdir(), "interlock-lock-"));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    copyFileSync(join(dirname(LOCK_FILE), "seccomp.json"), join(folder, "seccomp.json"));
    const lockFile = join(folder, "images.lock.json");
    if (lock !== undefined) writeFileSync(lockFile, JSON.stringify(lock));
    await using backend = await openTestBackend({ lockFile });
    const refusal = { code: "FAILED_PRECONDITION", reason, message: expect.stringContaining("make images") };
    await expect(runIn(backend, python("print(1)"))).rejects.toMatchObject(refusal);
  });
});

describe.skipIf(skipped !== "")(`leftovers ${skipped}`, () => {
  async function leave(labels: Record<string, string>): Promise<string> {
    const { images } = JSON.parse(readFileSync(LOCK_FILE, "utf8"));
    const HostConfig = { NetworkMode: "none" };
    const left = await docker.createContainer({
      Image: images.shell.id,
      Entrypoint: [],
      Cmd: ["sleep", "60"],
      Labels: labels,
      HostConfig,
    });
    onTestFinished(() => left.remove({ force: true }).catch(() => {}));
    await left.start();
    return left.id;
  }
  const later = String(Date.now() + 600_000);
  const someoneAlive = async (runnerId: string): Promise<Record<string, string>> => {
    // The labels of a real backend of this process, under another boot.
    await using other = await openTestBackend({ runnerId });
    const { seen, onOutput } = printed("up");
    const running = runIn(other, shell("echo up; sleep 60"), { onOutput });
    await seen;
    const labels = (await containersLabelled(`interlock.runner=${runnerId}`))[0]?.Labels ?? {};
    await other[Symbol.asyncDispose]();
    await running;
    return labels;
  };

  test("of a dead process or past their time are reaped at the next start; others stay", async () => {
    const runnerId = `test-${randomUUID()}`;
    const mark = { "interlock.runner": runnerId, "interlock.expires": later };
    const alive = await someoneAlive(runnerId);
    expect(ownerState(alive["interlock.owner"] ?? "")).toBe("alive");
    const dead = (alive["interlock.owner"] ?? "").replace(/-\d+$/, "-1");
    await leave({ ...mark, "interlock.boot": "old", "interlock.owner": dead });
    await leave({ ...mark, "interlock.boot": "old" });
    await leave({ ...alive, "interlock.expires": "1" });
    const used = await leave(alive);
    const foreign = await leave({ ...mark, "interlock.runner": `${runnerId}-other`, "interlock.boot": "old" });
    await using _ = await openTestBackend({ runnerId });
    const stay = await containersLabelled(`interlock.runner=${runnerId}`);
    expect(stay.map(({ Id }) => Id)).toEqual([used]);
    expect((await docker.getContainer(foreign).inspect()).State.Running).toBe(true);
  });

  test("of a backend that is disposed while it runs are none", async () => {
    const runnerId = `test-${randomUUID()}`;
    await someoneAlive(runnerId);
    expect(await containersLabelled(`interlock.runner=${runnerId}`)).toEqual([]);
  });
});

describe.skipIf(skipped !== "")(`an engine ${skipped}`, () => {
  /** Stands before the real one, so that it can vanish. */
  async function openDoor() {
    const folder = mkdtempSync(join(tmpdir(), "interlock-engine-"));
    const socketPath = join(folder, "docker.sock");
    const sockets = new Set<Socket>();
    const server = createServer((near) => {
      const far = connect("/var/run/docker.sock");
      for (const socket of [near, far]) {
        sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => sockets.delete(socket));
      }
      near.pipe(far).pipe(near);
    });
    const open = (): Promise<void> => new Promise((resolve) => server.listen(socketPath, resolve));
    const shut = (): void => {
      server.close();
      for (const socket of sockets) socket.destroy();
    };
    onTestFinished(() => {
      shut();
      rmSync(folder, { recursive: true });
    });
    return { socketPath, open, shut };
  }

  test("that vanishes ends the call with one error, and nothing is left running", async () => {
    const runnerId = `test-${randomUUID()}`;
    const { socketPath, open, shut } = await openDoor();
    await open();
    await using backend = await openTestBackend({ runnerId, socketPath });
    const { seen, onOutput } = printed("begun");
    const running = runIn(backend, shell("echo begun; sleep 60"), { onOutput });
    await seen;
    shut();
    await expect(running).rejects.toMatchObject({ code: "UNKNOWN", reason: "SANDBOX_LOST" });
    await expect
      .poll(async () => (await containersLabelled(`interlock.runner=${runnerId}`)).map(({ State }) => State))
      .not.toContain("running");
    await expect(runIn(backend, shell("true"))).rejects.toMatchObject({ reason: "SANDBOX_UNAVAILABLE" });

    await open();
    await expect.poll(() => runIn(backend, shell("echo 1")), { timeout: 10_000 }).toMatchObject({ resultJson: "1" });
    await expect.poll(() => containersLabelled(`interlock.runner=${runnerId}`)).toEqual([]);
  });

  test("that is not there is said so, and found when it comes", async () => {
    const { socketPath, open } = await openDoor();
    await using backend = await openTestBackend({ socketPath });
    expect(await backend.describe()).toMatchObject([
      { available: false, note: expect.stringContaining("ensure-docker") },
      {},
      {},
    ]);
    const refusal = { code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE" };
    expect(() => backend.check(specOf(shell("true")))).toThrowError(expect.objectContaining(refusal));
    await open();
    await backend.describe();
    expect(await runIn(backend, shell("echo 1"))).toMatchObject({ resultJson: "1" });
  });
});

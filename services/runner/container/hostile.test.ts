import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ContainerBackend } from "../container.ts";
import { openWorld, type World } from "../egress/test-world.ts";
import { HOSTILE } from "./hostile-programs.ts";
import { containersLabelled, docker, openTestBackend, runIn, shell, whyNoEngine } from "./test-engine.ts";

const skipped = await whyNoEngine();
const runtimes = skipped === "" ? Object.keys((await docker.info()).Runtimes ?? {}) : [];
const gvisorSkipped = runtimes.includes("runsc")
  ? skipped
  : `the engine has no runtime runsc: run deploy/ensure-gvisor.sh ${skipped}`;

describe.each([
  { isolationClass: "runc", without: skipped },
  { isolationClass: "gvisor", without: gvisorSkipped },
] as const)("hostile code under $isolationClass", ({ isolationClass, without }) => {
  const runnerId = `test-${crypto.randomUUID()}`;
  let world: World | undefined;
  let backend: ContainerBackend;
  beforeAll(async () => {
    if (without !== "") return;
    world = await openWorld();
    backend = await openTestBackend({ runnerId, warm: 3, egress: { resolve: world.resolve, extraCa: [world.ca] } });
  });
  afterAll(async () => {
    if (without !== "") return;
    await backend[Symbol.asyncDispose]();
    await world?.[Symbol.asyncDispose]();
    expect(await containersLabelled(`interlock.runner=${runnerId}`)).toEqual([]);
  });

  /** Of another tenant, on the same runner, in a sandbox that lives through all of it. */
  const neighbour = () =>
    runIn(backend, shell("jq -c .", { sandbox: { lifetime: "session" }, principal: { tenant: "neighbour" } }));

  test.skipIf(without !== "").each(HOSTILE)(`$name ${without}`, async ({ program, must, underGvisor = must }) => {
    const result = await runIn(backend, { ...program, isolationClass });
    expect(result).toMatchObject(isolationClass === "runc" ? must : underGvisor);
    expect(result.enforcement.isolationClass).toBe(isolationClass);
    expect(await neighbour()).toMatchObject({ end: "exited", resultJson: "{}" });
  });
});

test("there are at least forty of them", () => {
  expect(HOSTILE.length).toBeGreaterThanOrEqual(40);
  expect(new Set(HOSTILE.map(({ name }) => name)).size).toBe(HOSTILE.length);
});

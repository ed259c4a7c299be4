import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { expect, it, onTestFinished } from "vitest";

/** `policy test --watch`, as somebody at work on a policy has it beside their editor. */

function startWatch(flags: (folder: string) => string[] = () => []) {
  const folder = join(mkdtempSync(join(tmpdir(), "interlock-watch-")), "policies");
  cpSync("policies", folder, { recursive: true });
  const child = spawn("bin/interlock", ["policy", "test", folder, "--watch", ...flags(folder)]);
  const ended = once(child, "exit");
  const errors = text(child.stderr);
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await ended;
    rmSync(join(folder, ".."), { recursive: true });
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  /** What one run prints, up to where it waits for the next change. */
  const run = async (): Promise<string> => {
    const said: string[] = [];
    for (;;) {
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`it ended:\n${said.join("\n")}\n${await errors}`);
      if (value.startsWith("Watching ")) return said.join("\n");
      said.push(value);
    }
  };
  return { folder, run, child, ended, errors };
}

it("runs the tests again at each change, lives through a broken file, and ends well when interrupted", async () => {
  const { folder, run, child, ended } = startWatch();
  const file = join(folder, "policy.csv");
  expect(await run()).toMatch(/^\d+ passed, 0 failed/m);
  appendFileSync(file, "p, demo, *, math.compute, deny, true, Not today.\n");
  expect(await run()).toMatch(/^FAILED .*demo\.yaml:\d+: .*\n {2}expected allow, decided deny: Not today\./m);
  writeFileSync(file, "p, demo, broken\n");
  expect(await run()).toMatch(/policy\.csv:1: A rule is /);
  cpSync("policies/policy.csv", file);
  expect(await run()).toMatch(/^\d+ passed, 0 failed/m);
  child.kill("SIGINT");
  expect(await ended).toEqual([0, null]);
});

it("is not set off by its own report", async () => {
  const { folder, run } = startWatch((watched) => ["--junit", join(watched, "report.xml")]);
  await run();
  // Each run writes the report. Were it a change, it would run again with all tests passing before the next line is there.
  appendFileSync(join(folder, "policy.csv"), "p, demo, *, math.compute, deny, true, Not today.\n");
  expect(await run()).toMatch(/Not today\./);
});

it("ends, and says why, when the folder goes away", async () => {
  const { folder, run, ended, errors } = startWatch();
  await run();
  rmSync(folder, { recursive: true });
  expect(await ended).toEqual([2, null]);
  expect(await errors).toContain("The directory cannot be read (ENOENT); give the one that holds model.conf.");
});

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunResult } from "../backend.ts";
import type { ContainerBackend } from "../container.ts";
import {
  containersLabelled,
  openTestBackend,
  type Program,
  printed,
  runIn,
  shell,
  specOf,
  whyNoEngine,
} from "./test-engine.ts";

const skipped = await whyNoEngine();

type Session = NonNullable<Program["sandbox"]>;

const runnerId = `test-${crypto.randomUUID()}`;
let backend: ContainerBackend;
beforeAll(async () => {
  if (skipped !== "") return;
  backend = await openTestBackend({ runnerId });
});
afterAll(async () => {
  if (skipped !== "") return;
  await backend[Symbol.asyncDispose]();
  expect(await containersLabelled(`interlock.runner=${runnerId}`)).toEqual([]);
});
const inSession = (
  session: string,
  code: string,
  more: Partial<Program> & { readonly life?: Session } = {},
): Promise<RunResult> =>
  runIn(
    backend,
    shell(code, {
      ...more,
      sandbox: { lifetime: "session", ...more.life },
      principal: { session, ...more.principal },
    }),
  );
const operate = (
  session: string,
  operation: NonNullable<Session["operation"]>,
  args: object = {},
  more: Partial<Program> = {},
) =>
  runIn(backend, {
    ...{ image: "shell", command: [], argumentsJson: JSON.stringify(args), principal: { session } },
    ...more,
    sandbox: { lifetime: "session", operation },
  });
const base64 = (text: string): string => Buffer.from(text).toString("base64");

describe.skipIf(skipped !== "")(`a session's sandbox ${skipped}`, () => {
  test("keeps files and processes between calls, and calls in it follow each other", async () => {
    await inSession("keeps", "echo 1 > a; (while :; do date +%N > tick; sleep 0.05; done) >/dev/null 2>&1 &");
    expect(
      await inSession("keeps", "cat a; test -s tick && pgrep -f tick >/dev/null 2>&1; ls /proc | grep -c '^[0-9]'"),
    ).toMatchObject({
      ...{ end: "exited", exitCode: 0 },
      stdout: expect.stringMatching(/^1\n[4-9]\n$/),
    });
    const order = await Promise.all(
      ["a", "b", "c"].map((name) => inSession("keeps", `cat order 2>/dev/null; sleep 0.1; echo ${name} >> order`)),
    );
    expect(order.map(({ stdout }) => stdout)).toEqual(["", "a\n", "a\nb\n"]);
  });

  test("is not that of another principal, in any part of the name", async () => {
    await inSession("mine", "echo secret > a");
    for (const principal of [{ tenant: "other" }, { agent: "other" }, { session: "other" }, { user: "other" }]) {
      expect(await inSession("mine", "cat a", { principal: { session: "mine", ...principal } })).toMatchObject({
        exitCode: 1,
        stdout: "",
      });
    }
  });

  test("stands still while it is paused, and goes on with the next call", async () => {
    await inSession("paused", "(while :; do echo >> ticks; sleep 0.02; done) >/dev/null 2>&1 &");
    expect(await operate("paused", "pause")).toMatchObject({ exitCode: 0 });
    const [listed] = await containersLabelled(`interlock.runner=${runnerId}`).then((all) =>
      all.filter(({ State }) => State === "paused"),
    );
    expect(listed).toBeDefined();
    expect((await inSession("paused", "wc -l < ticks")).exitCode).toBe(0);
    expect(await operate("paused", "pause")).toMatchObject({ exitCode: 0 });
    expect(await operate("paused", "resume")).toMatchObject({ exitCode: 0 });
  });

  test("ends when it is closed; what has none is said so", async () => {
    await inSession("closed", "echo 1 > a");
    expect(await operate("closed", "close")).toMatchObject({ exitCode: 0 });
    expect(await inSession("closed", "cat a")).toMatchObject({ exitCode: 1 });
    expect(await operate("never", "close")).toMatchObject({
      exitCode: 1,
      error: "The session has no sandbox of this kind.",
    });
  });

  test("outlives a program that is stopped, and kills that one alone", async () => {
    await inSession("stopped", "echo 1 > a");
    expect(await inSession("stopped", "sleep 60", { limits: { wallMs: 300 } })).toMatchObject({ end: "timeout" });
    expect(await inSession("stopped", "while :; do :; done", { limits: { cpuMs: 300 } })).toMatchObject({ end: "cpu" });
    const { seen, onOutput } = printed("up");
    const cancel = new AbortController();
    const program = shell("echo up; sleep 60", { sandbox: { lifetime: "session" }, principal: { session: "stopped" } });
    const running = runIn(backend, program, { onOutput, signal: cancel.signal });
    await seen;
    cancel.abort();
    expect(await running).toMatchObject({ end: "killed" });
    expect(await inSession("stopped", "cat a")).toMatchObject({ resultJson: "1" });
  });

  test("ends when nobody uses it, and when its time is over, also in use", async () => {
    await inSession("idle", "echo 1 > a", { life: { idle_ms: 100 } });
    await expect.poll(() => backend.state().sessions, { timeout: 5_000 }).toBeGreaterThanOrEqual(0);
    await expect
      .poll(async () => (await inSession("idle", "cat a", { life: { idle_ms: 100 } })).exitCode, { interval: 400 })
      .toBe(1);
    expect(await inSession("old", "sleep 30", { life: { ttl_ms: 500 } })).toMatchObject({ end: "lost" });
  });

  test("says that it is no fresh one", async () => {
    const { enforcement } = await inSession("says", "true");
    expect(enforcement.enforced).not.toContain("fresh-per-call");
    expect((await runIn(backend, shell("true"))).enforcement.enforced).toContain("fresh-per-call");
  });
});

describe.skipIf(skipped !== "")(`the files of a session ${skipped}`, () => {
  test("takes files, gives them back, and lists them", async () => {
    const content = "0123456789".repeat(500);
    expect(await operate("files", "upload", { path: "in/data.txt", content: base64(content) })).toMatchObject({
      resultJson: '{"path":"in/data.txt","size":5000}',
    });
    expect((await inSession("files", "wc -c < in/data.txt; mv in/data.txt out.txt")).stdout).toBe("5000\n");
    const { resultJson } = await operate("files", "download", { path: "out.txt" });
    expect(JSON.parse(resultJson)).toEqual({ path: "out.txt", size: 5000, content: base64(content) });
    const listed = JSON.parse((await operate("files", "list")).resultJson).entries;
    expect(listed).toEqual([
      { name: "in", type: "directory", mode: 0o755, size: expect.any(Number) },
      { name: "out.txt", type: "file", mode: 0o644, size: 5000 },
    ]);
    await operate("files", "upload", { path: "out.txt", content: "" });
    expect(JSON.parse((await operate("files", "download", { path: "out.txt" })).resultJson).size).toBe(0);
  });

  const badPaths = [
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a//b",
    ".",
    "a/.",
    "",
    "a\0b",
    `${"a".repeat(256)}`,
    "a/".repeat(600),
  ];
  test.each(badPaths)("refuses the path %j before anything starts", (path) => {
    const program: Program = { image: "shell", command: [], argumentsJson: JSON.stringify({ path, content: "" }) };
    const spec = specOf({ ...program, sandbox: { lifetime: "session", operation: "upload" } });
    const refusal = { code: "INVALID_ARGUMENT", reason: "FILE_ARGUMENT_INVALID", field: "arguments.path" };
    expect(() => backend.check(spec)).toThrowError(expect.objectContaining(refusal));
  });

  test("follows no link of a program's, on the way or at the end", async () => {
    await inSession(
      "links",
      "ln -s /etc etc; ln -s /etc/passwd passwd; ln -s /proc/1/environ env; mkfifo pipe; echo x > file; ln file hard",
    );
    for (const path of ["etc/passwd", "passwd", "env", "pipe", "file/x", "nothing"]) {
      const { exitCode, resultJson, error } = await operate("links", "download", { path });
      expect({ path, exitCode, resultJson }).toEqual({ path, exitCode: 1, resultJson: "" });
      expect(error).toMatch(/^(etc\/)?\w/);
    }
    expect(await operate("links", "download", { path: "hard" })).toMatchObject({ exitCode: 0 });
    expect(await operate("links", "list", { path: "etc" })).toMatchObject({ exitCode: 1 });
    expect(await operate("links", "upload", { path: "etc/x", content: "" })).toMatchObject({ exitCode: 1 });
    // What was a link is a file afterwards, and what it pointed to is as it was.
    expect(await operate("links", "upload", { path: "passwd", content: base64("mine") })).toMatchObject({
      exitCode: 0,
    });
    expect((await inSession("links", "cat passwd; head -c 4 /etc/passwd; test -L passwd || echo file")).stdout).toBe(
      "minerootfile\n",
    );
  });

  test("gives no file larger than the call's output, a sparse one neither, and takes none that does not fit", async () => {
    await inSession("large", "truncate -s 50M sparse; head -c 60M /dev/zero > full || true", {
      limits: { memoryBytes: 128 << 20 },
    });
    const limits = { memoryBytes: 128 << 20, outputBytes: 1000 };
    expect(await operate("large", "download", { path: "sparse" }, { limits })).toMatchObject({
      exitCode: 1,
      error: "sparse is larger than the call's output_bytes.",
    });
    const content = Buffer.alloc(6 << 20).toString("base64");
    expect(await operate("large", "upload", { path: "more", content }, { limits })).toMatchObject({
      exitCode: 1,
      error: expect.stringMatching(/full/),
    });
    expect(await operate("large", "download", { path: "more" }, { limits })).toMatchObject({
      exitCode: 1,
      error: "more does not exist.",
    });
  });
});

import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "./backend.ts";
import {
  containersLabelled,
  openTestBackend,
  type Program,
  printed,
  python,
  runIn,
  shell,
  specOf,
  whyNoEngine,
} from "./container/test-engine.ts";

const skipped = await whyNoEngine();

const hello: readonly { readonly name: string; readonly program: Program; readonly resultJson: string }[] = [
  {
    name: "python",
    program: python("import json,sys; print(json.dumps({'hello': json.load(sys.stdin)['name']}))"),
    resultJson: '{"hello":"Ada"}',
  },
  {
    name: "node",
    program: {
      image: "node",
      command: ["node", "-e", "console.log(JSON.stringify({hello: JSON.parse(fs.readFileSync(0)).name}))"],
    },
    resultJson: '{"hello":"Ada"}',
  },
  { name: "shell", program: shell("jq '{hello: .name}'"), resultJson: '{"hello":"Ada"}' },
  { name: "no JSON", program: shell("echo hello"), resultJson: "" },
  { name: "two values", program: shell("echo 1 2"), resultJson: "" },
];
const endings: readonly { readonly name: string; readonly program: Program; readonly expected: object }[] = [
  {
    name: "its exit code and what it says on stderr",
    program: shell("echo '{}'; echo oops >&2; exit 3"),
    expected: { end: "exited", exitCode: 3, stdout: "{}\n", stderr: "oops\n", resultJson: "" },
  },
  { name: "no such program", program: { image: "shell", command: ["nosuch"] }, expected: { exitCode: 127 } },
  {
    name: "the wall clock",
    program: shell("echo begun; sleep 60", { limits: { wallMs: 500 } }),
    expected: { end: "timeout", stdout: "begun\n" },
  },
  {
    name: "a wall clock that its children outlive",
    program: shell("sleep 60 & disown; sleep 60", { limits: { wallMs: 300 } }),
    expected: { end: "timeout" },
  },
  {
    name: "CPU time, of one process",
    program: python("while True: pass", { limits: { cpuMs: 400 } }),
    expected: { end: "cpu" },
  },
  {
    name: "CPU time, of many together",
    program: shell("for i in 1 2 3 4; do (while :; do :; done) & done; wait", { limits: { cpuMs: 400 } }),
    expected: { end: "cpu" },
  },
  {
    name: "memory",
    program: python("x = bytearray(200 << 20); print(len(x))", { limits: { memoryBytes: 32 << 20 } }),
    expected: { end: "oom" },
  },
  {
    name: "memory kept in files",
    program: shell("for i in 1 2 3; do head -c 60M /dev/zero > /tmp/$i || exit 9; done", {
      limits: { memoryBytes: 32 << 20 },
    }),
    expected: { end: "oom" },
  },
];

describe.skipIf(skipped !== "")(`a container ${skipped}`, () => {
  const runnerId = `test-${randomUUID()}`;
  let backend: Backend;
  beforeAll(async () => {
    backend = await openTestBackend({ runnerId });
  });
  afterAll(async () => {
    await backend[Symbol.asyncDispose]();
    expect(await containersLabelled(`interlock.runner=${runnerId}`)).toEqual([]);
  });

  test.each(hello)("takes arguments on stdin and returns what it prints: $name", async ({ program, resultJson }) => {
    const result = await runIn(backend, { ...program, argumentsJson: '{"name":"Ada"}' });
    expect(result).toMatchObject({ end: "exited", exitCode: 0, error: "", stderr: "", resultJson });
    expect(result.usage.cpuMs).toBeGreaterThan(0);
    expect(result.usage.peakMemoryBytes).toBeGreaterThan(1 << 20);
  });

  test.each(endings)("ends by $name", async ({ program, expected }) => {
    expect(await runIn(backend, program)).toMatchObject(expected);
  });

  test("ends when the call is cancelled, and nothing of it is left", async () => {
    const { seen, onOutput } = printed("begun");
    const cancel = new AbortController();
    const running = runIn(backend, shell("trap '' TERM INT; echo begun; sleep 60"), {
      onOutput,
      signal: cancel.signal,
    });
    await seen;
    cancel.abort();
    expect(await running).toMatchObject({ end: "killed", stdout: "begun\n" });
    expect(await containersLabelled(`interlock.runner=${runnerId}`)).toEqual([]);
  });

  test("that was cancelled before it started does not start", async () => {
    const result = await runIn(backend, shell("echo begun"), { signal: AbortSignal.abort() });
    expect(result).toMatchObject({ end: "killed", stdout: "" });
  });
});

describe.skipIf(skipped !== "")(`a container's program ${skipped}`, () => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openTestBackend();
  });
  afterAll(() => backend[Symbol.asyncDispose]());

  test("that floods its output keeps head and tail, and only so much", async () => {
    let streamed = 0;
    const onOutput = (_: string, text: string): void => {
      streamed += text.length;
    };
    const code = "import sys; w = sys.stdout.write; w('HEAD'); [w('é' * 65536) for _ in range(100)]; w('TAIL')";
    const result = await runIn(backend, python(code, { limits: { outputBytes: 4096 } }), { onOutput });
    expect(result).toMatchObject({ end: "exited", truncated: true, resultJson: "" });
    expect(result.stdout).toMatch(/^HEADé+\n\[\.\.\. \d+ bytes cut \.\.\.\]\né+TAIL$/);
    expect(result.usage.outputBytes).toBe(2 * 65536 * 100 + 8);
    expect(streamed).toBeLessThanOrEqual(4096);
  });

  test("may write what is no text", async () => {
    const result = await runIn(backend, python("import os; os.write(1, b'a\\xff\\xfe' + bytes(2) + b'\\xc3')"));
    expect(result.stdout).toBe("a\ufffd\ufffd\0\0\ufffd");
  });

  test("reads 200 KiB of arguments", async () => {
    const argumentsJson = JSON.stringify({ text: "x".repeat(200 << 10) });
    const result = await runIn(backend, python("import sys; print(len(sys.stdin.read()))", { argumentsJson }));
    expect(result.resultJson).toBe(String(argumentsJson.length));
  });

  test("need not read its arguments", async () => {
    const argumentsJson = JSON.stringify({ text: "x".repeat(2 << 20) });
    const result = await runIn(backend, shell("head -c 10000 /dev/zero | tr '\\0' y", { argumentsJson }));
    expect(result).toMatchObject({ end: "exited", exitCode: 0, stdout: "y".repeat(10_000) });
  });

  test("contains a fork bomb", async () => {
    const code =
      "import os\nn = 0\ntry:\n  while n < 1000:\n    if os.fork() == 0: os.pause() if hasattr(os, 'pause') else __import__('time').sleep(60)\n    n += 1\nexcept OSError as e: print(n)";
    const result = await runIn(backend, python(code, { limits: { pids: 10 } }));
    expect(result).toMatchObject({ end: "exited", resultJson: "9" });
  });

  test("leaves no file to the next", async () => {
    await runIn(backend, shell("echo secret > /tmp/x; echo secret > /work/x"));
    expect(await runIn(backend, shell("cat /tmp/x /work/x"))).toMatchObject({ exitCode: 1, stdout: "" });
  });

  test("runs beside others", async () => {
    const runs = Array.from({ length: 6 }, (_, n) => runIn(backend, shell("jq .n", { argumentsJson: `{"n":${n}}` })));
    expect((await Promise.all(runs)).map(({ resultJson }) => resultJson)).toEqual(["0", "1", "2", "3", "4", "5"]);
  });

  test("of a class that this machine lacks is refused, and not run in another", async () => {
    const classes = await backend.describe();
    expect(classes.find(({ isolationClass }) => isolationClass === "runc")).toMatchObject({ available: true });
    for (const { isolationClass, available, note } of classes) {
      if (available || (isolationClass !== "gvisor" && isolationClass !== "kata")) continue;
      expect(note).toMatch(/install/);
      const program = shell("true", { isolationClass });
      const refusal = { code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE", message: note };
      expect(() => backend.check(specOf(program))).toThrowError(expect.objectContaining(refusal));
      await expect(runIn(backend, program)).rejects.toMatchObject(refusal);
    }
  });
});

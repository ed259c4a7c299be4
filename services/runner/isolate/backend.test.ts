import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { silentLog } from "../../shared/log.ts";
import type { Backend, Limits, RunResult, RunSpec } from "../backend.ts";
import { openIsolateBackend } from "./backend.ts";

/** Real worker processes, and programs that mean no good. */

const WORKERS = { workers: 3, warm: 1, per_tenant: 64, require_confinement: false };

let backend: Backend;
beforeAll(async () => {
  backend = await openIsolateBackend({ workers: { ...WORKERS, workers: 3 }, log: silentLog });
});
afterAll(() => backend[Symbol.asyncDispose]());

/** A wall clock that no busy machine reaches before the CPU limit. */
const LIMITS: Limits = {
  wallMs: 20_000,
  cpuMs: 500,
  memoryBytes: 32 << 20,
  outputBytes: 4_096,
  pids: 1,
  egressBytes: 0,
};

type Change = { readonly limits?: Partial<Limits>; readonly tenant?: string; readonly args?: unknown };

function specOf(code: string, { limits, tenant = "demo", args = {} }: Change = {}): RunSpec {
  return {
    ...{
      callId: "c1",
      tenant,
      agent: "a1",
      session: "s1",
      user: "",
      impact: "low",
      tool: "math.compute",
      egress: [],
      secrets: [],
      depth: 0,
    },
    sandbox: { kind: "isolate", code },
    argumentsJson: JSON.stringify(args),
    limits: { ...LIMITS, ...limits },
  };
}

type Io = { readonly signal?: AbortSignal; readonly onOutput?: (stream: string, text: string) => void };

function run(code: string, change: Change = {}, { signal, onOutput = () => {} }: Io = {}): Promise<RunResult> {
  return backend.run(specOf(code, change), { signal: signal ?? new AbortController().signal, onOutput });
}

describe("an honest program", () => {
  const programs: [what: string, code: string, want: Partial<RunResult>][] = [
    ["returns a value", "return input.a + 1", { resultJson: "42" }],
    ["returns nothing", "", { resultJson: "" }],
    ["awaits", "await null; return (await Promise.all([1, 2])).length", { resultJson: "2" }],
    ["prints", "console.log('a', {b: 1}); console.error('c')", { stdout: 'a {"b":1}\n', stderr: "c\n" }],
    ["throws", "\nthrow new TypeError('no')", { exitCode: 1, error: "TypeError: no (program.js:2:7)" }],
    ["throws what is no error", "throw {a: 1}", { exitCode: 1, error: expect.stringContaining('{"a":1}') }],
    ["returns what is no JSON", "return () => 1", { exitCode: 1, error: expect.stringContaining("function") }],
    [
      "returns too much",
      "return 'x'.repeat(5000)",
      {
        ...{ end: "limit", exitCode: 1, error: expect.stringContaining("Return less") },
        limit: { name: "output_bytes", allowed: 4096, used: 5002 },
      },
    ],
    [
      "does not parse",
      "const a = 1;\n  a ==== 2;",
      { exitCode: 1, error: "SyntaxError: Unexpected token '=' (program.js:2:8)" },
    ],
    [
      "ends too early",
      "return [\n  1,",
      { exitCode: 1, error: "SyntaxError: Unexpected token '}', where the program ends (program.js:2:5)" },
    ],
  ];
  it.each(programs)("%s", async (_, code, want) => {
    const result = await run(code, { args: { a: 41 } });
    expect(result).toMatchObject({ end: "exited", exitCode: 0, error: "", ...want });
    expect(result.enforcement).toMatchObject({ kind: "isolate", isolationClass: "process" });
  });

  it("sees the argument `input` where another argument is the program", async () => {
    const sandbox = { kind: "isolate", code_argument: "program" } as const;
    const argumentsJson = JSON.stringify({ program: "return input.n * 2", input: { n: 21 } });
    const io = { signal: new AbortController().signal, onOutput: () => {} };
    expect((await backend.run({ ...specOf(""), sandbox, argumentsJson }, io)).resultJson).toBe("42");
  });

  const unusable: [argumentsJson: string, field: string][] = [
    ["{}", "arguments_json.program"],
    ['{"program":["return 1"]}', "arguments_json.program"],
  ];
  it.each(unusable)("must be text: %s is refused", async (argumentsJson, field) => {
    const sandbox = { kind: "isolate", code_argument: "program" } as const;
    const io = { signal: new AbortController().signal, onOutput: () => {} };
    const going = backend.run({ ...specOf(""), sandbox, argumentsJson }, io);
    await expect(going).rejects.toMatchObject({ code: "INVALID_ARGUMENT", field });
  });

  it("sees null where the argument `input` is missing", async () => {
    const sandbox = { kind: "isolate", code_argument: "program" } as const;
    const argumentsJson = JSON.stringify({ program: "return [input]" });
    const io = { signal: new AbortController().signal, onOutput: () => {} };
    expect((await backend.run({ ...specOf(""), sandbox, argumentsJson }, io)).resultJson).toBe("[null]");
  });

  it("is heard as it prints", async () => {
    const heard: string[] = [];
    await run("console.log('first')", {}, { onOutput: (stream, text) => heard.push(`${stream} ${text}`) });
    expect(heard).toEqual(["stdout first\n"]);
  });

  it("finds nothing of another's: not in globals, not in prototypes", async () => {
    await run("globalThis.left = 1; Object.prototype.left = 1; Array.prototype.push = null");
    expect((await run("return [typeof left, [].left === undefined, [1].push(2)]")).resultJson).toBe(
      '["undefined",true,2]',
    );
  });
});

it("reaches nothing of Node", async () => {
  const names = ["process", "require", "module", "fetch", "Buffer", "WebAssembly", "SharedArrayBuffer"];
  const { resultJson } = await run(
    `return ${JSON.stringify(names)}.filter((name) => typeof globalThis[name] !== "undefined")`,
  );
  expect(JSON.parse(resultJson)).toEqual([]);
  expect((await run("return await import('node:fs')")).exitCode).toBe(1);
  expect((await run("return this.constructor.constructor('return process')().pid")).exitCode).toBe(1);
});

describe("a program", () => {
  it("that floods its output has its head and its tail kept", async () => {
    const result = await run("for (let i = 0; i < 5000; i++) console.log('line ' + i)");
    expect(result.truncated).toBe(true);
    expect(Buffer.byteLength(result.stdout)).toBeLessThan(LIMITS.outputBytes + 200);
    expect([result.stdout.startsWith("line 0\n"), result.stdout.endsWith("line 4999\n")]).toEqual([true, true]);
  });

  it("that floods its widest output with what JSON writes longest is only cut", async () => {
    const limits = { outputBytes: 1 << 20 };
    const result = await run("for (let i = 0; i < 6; i++) console.log('\\0'.repeat(1e6))", { limits });
    expect(result).toMatchObject({ end: "exited", error: "", truncated: true });
  });

  it("that keeps within its CPU time has its wall clock, and the other way round", async () => {
    const loop = "for (;;);";
    const [wall, cpu] = await Promise.all([
      run(loop, { limits: { wallMs: 500, cpuMs: 60_000 } }),
      run(loop, { limits: { wallMs: 60_000, cpuMs: 200 } }),
    ]);
    expect([wall.end, cpu.end]).toEqual(["timeout", "cpu"]);
    expect(cpu.usage.cpuMs).toBeGreaterThan(200);
  });

  const hoard = "const all = []; for (;;) all.push('x'.repeat(1e5) + all.length, new Array(1e4).fill(all.length));";
  const late: [when: string, code: string][] = [
    ["before it returns", hoard],
    ["after it has let go, in a promise's turn", `await null; ${hoard}`],
    ["after it has let go, in a timer's turn", `await new Promise((then) => setTimeout(then, 20)); ${hoard}`],
    ["in what turns its result into text", `return { toJSON() { ${hoard} } };`],
  ];
  it.each(late)("that uses up its memory %s ends so, and the next has a worker", async (_, code) => {
    const result = await run(code, { limits: { cpuMs: 10_000 } });
    expect(result).toMatchObject({ end: "oom", resultJson: "", limit: { allowed: 32 << 20 } });
    expect((await run("return 1")).resultJson).toBe("1");
  });

  const lies: [what: string, code: string][] = [
    ["JSON.stringify", "JSON.stringify = () => 'not json'; return 1"],
    ["Promise.prototype.then", "Promise.prototype.then = () => 'r\"forged\"'; return 1"],
    ["String.prototype.slice", "String.prototype.slice = () => 'forged'; return 1"],
    ["Array.prototype.map", "Array.prototype.map = () => ['forged']; console.log('x'); return 1"],
    ["Object.prototype.toJSON", "Object.prototype.toJSON = () => 'forged'; return {}"],
  ];
  it.each(lies)("that replaces %s fools nobody but itself", async (_, code) => {
    const result = await run(code);
    expect(() => JSON.parse(result.resultJson || "null")).not.toThrow();
    expect((await run("return JSON.stringify([1]) + String('ab').slice(1)")).resultJson).toBe('"[1]b"');
  });
});

describe("from outside", () => {
  it("a call that is cancelled ends as killed", async () => {
    const stop = new AbortController();
    const going = run(
      "console.log('going'); for (;;);",
      { limits: { cpuMs: 10_000 } },
      { signal: stop.signal, onOutput: () => stop.abort() },
    );
    setTimeout(() => stop.abort(), 500);
    expect((await going).end).toBe("killed");
  });

  it("a call that is cancelled before it begins never does", async () => {
    const heard: string[] = [];
    const io = { signal: AbortSignal.abort(), onOutput: (_: string, text: string) => heard.push(text) };
    expect(await run("console.log('begun')", {}, io)).toMatchObject({ end: "killed", resultJson: "" });
    expect(heard).toEqual([]);
  });

  it("waits for a worker no longer than its wall clock", async () => {
    const busy = Array.from({ length: 3 }, () =>
      run("await new Promise(() => {})", { tenant: "busy", limits: { wallMs: 1_500 } }),
    );
    const late = await run("return 1", { tenant: "late", limits: { wallMs: 300 } });
    expect(late).toMatchObject({
      end: "timeout",
      resultJson: "",
      error: expect.stringContaining("no worker was free"),
    });
    await Promise.all(busy);
    expect((await run("return 1", { tenant: "late" })).resultJson).toBe("1");
  });

  it("a limit that cannot be held is refused", () => {
    expect(() => backend.check(specOf("", { limits: { memoryBytes: 8 * 2 ** 30 } }))).toThrow(
      /isolate is held to at most/,
    );
  });

  it("its workers hold nothing, and end with it", async () => {
    const before = workersOf(process.pid);
    const own = await openIsolateBackend({ workers: { ...WORKERS, workers: 1 }, log: silentLog });
    await own.run(specOf("return 1"), { signal: new AbortController().signal, onOutput: () => {} });
    const mine = workersOf(process.pid).filter((pid) => !before.includes(pid));
    expect(mine.length).toBe(1);
    const status = readFileSync(`/proc/${mine[0]}/status`, "utf8");
    if (process.getuid?.() === 0) expect(status).toMatch(/^Uid:\t65534\t65534/m);
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    expect(status).toMatch(/^CapEff:\t0000000000000000$/m);
    expect(readFileSync(`/proc/${mine[0]}/environ`, "utf8")).toMatch(/^(PWD=\/\0)?$/); // bwrap says where it is
    await own[Symbol.asyncDispose]();
    expect(workersOf(process.pid).filter((pid) => mine.includes(pid))).toEqual([]);
  });
});

it("workers end with a runner that is killed", async () => {
  const program = `
    import { openIsolateBackend } from ${JSON.stringify(new URL("backend.ts", import.meta.url).href)};
    const log = { info() {}, warn() {}, error() {} };
    const backend = await openIsolateBackend({ workers: ${JSON.stringify({ ...WORKERS, workers: 2 })}, log });
    const limits = ${JSON.stringify({ ...LIMITS, wallMs: 600_000, cpuMs: 600_000 })};
    const spec = { ...${JSON.stringify(specOf("console.log('going'); for (;;);"))}, limits };
    await backend.run(spec, { signal: new AbortController().signal, onOutput: () => console.log("going") });`;
  const args = ["--no-warnings", "--input-type=module", "--eval", program];
  const runner = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(runner, "exit");
  try {
    await once(runner.stdout, "data");
    const workers = workersOf(runner.pid ?? 0);
    expect(workers.length).toBeGreaterThan(0);
    runner.kill("SIGKILL");
    await exited;
    await expect.poll(() => workers.filter(isWorker)).toEqual([]);
  } finally {
    runner.kill("SIGKILL");
  }
});

/** The processes below this one that hold isolates: bwrap stands between. */
function workersOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => (isWorker(child) ? [child] : workersOf(child)));
}

function childrenOf(pid: number): number[] {
  try {
    const text = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
    return text === "" ? [] : text.split(" ").map(Number);
  } catch {
    return []; // it has ended meanwhile
  }
}

function isWorker(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0")[0] === process.execPath;
  } catch {
    return false;
  }
}

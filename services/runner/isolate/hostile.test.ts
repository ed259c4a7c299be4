import { afterEach, describe, expect, it, vi } from "vitest";
import { silentLog } from "../../shared/log.ts";
import type { Backend, RunResult, RunSpec } from "../backend.ts";
import { openIsolateBackend } from "./backend.ts";
import { type Confinement, planConfinement } from "./confine.ts";

/** What a call sees when its worker has been taken over by a program that escaped, or when there can be no workers. */

vi.mock("./confine.ts", async (importOriginal) => ({
  ...(await importOriginal<typeof import("./confine.ts")>()),
  planConfinement: vi.fn(),
}));

const WORKERS = { workers: 1, warm: 1, per_tenant: 64, require_confinement: false };

let backend: Backend | undefined;
afterEach(() => backend?.[Symbol.asyncDispose]());

async function openWith(whenRun: string): Promise<Backend> {
  const script = `
    const say = (message) => {
      const body = Buffer.from(JSON.stringify(message));
      const header = Buffer.alloc(4);
      header.writeUInt32BE(body.length);
      process.stdout.write(Buffer.concat([header, body]));
    };
    const used = (run) => ({ run, cpuMs: 0, memoryBytes: 0 });
    const ready = () => say({ kind: "ready" });
    const onRun = (run) => { ${whenRun} };
    process.stdin.on("data", (bytes) => onRun(JSON.parse(bytes.subarray(4)).run));
    ready();`;
  const confinement: Confinement = {
    ...{ argv: [process.execPath, "--eval", script], filter: undefined, dataBytes: 448 << 20 },
    ...{ enforced: ["x"], missing: ["y"] },
  };
  vi.mocked(planConfinement).mockResolvedValue(confinement);
  backend = await openIsolateBackend({ workers: { ...WORKERS, warm: 0 }, log: silentLog });
  return backend;
}

const SPEC: RunSpec = {
  ...{
    callId: "c1",
    tenant: "demo",
    agent: "a1",
    session: "s1",
    user: "",
    impact: "low",
    tool: "test.tool",
    egress: [],
    secrets: [],
    depth: 0,
    argumentsJson: "{}",
  },
  sandbox: { kind: "isolate", code: "" },
  limits: { wallMs: 5_000, cpuMs: 2_000, memoryBytes: 64 << 20, outputBytes: 100, pids: 1, egressBytes: 0 },
};

async function runOn(whenRun: string): Promise<RunResult> {
  const opened = await openWith(whenRun);
  return opened.run(SPEC, { signal: new AbortController().signal, onOutput: () => {} });
}

const answer = (json: string): string => `say({ kind: "returned", ...used(run), json: ${JSON.stringify(json)} });`;

describe("a worker that was taken over", () => {
  const ends: [does: string, whenRun: string, want: Partial<RunResult>][] = [
    ["says what is no message", 'say({ kind: "grant" })', { end: "lost" }],
    ["is ready before it has answered", "ready()", { end: "lost" }],
    ["answers for another run", 'say({ kind: "returned", ...used(run + 1), json: "1" })', { end: "lost" }],
    ["exits", "process.exit(0)", { end: "lost" }],
    ["is killed by another", 'process.kill(process.pid, "SIGKILL")', { end: "lost" }],
    ["aborts, as V8 does where memory ends", "process.abort()", { end: "oom" }],
  ];
  it.each(ends)("and %s ends its call, with nothing of what it said", async (_, whenRun, want) => {
    const result = await runOn(whenRun);
    expect(result).toMatchObject({
      exitCode: 1,
      resultJson: "",
      enforcement: { enforced: ["x"], missing: ["y"] },
      ...want,
    });
    expect(result.error).not.toBe("");
  });

  const results: [what: string, json: string, says: RegExp][] = [
    ["no JSON", "{", /not JSON/],
    ["JSON and more", "1 2", /not JSON/],
    ["a key that is there twice", '{"a":1,"a":2}', /same key twice/],
    ["a key that reaches prototypes", '{"__proto__":1}', /__proto__/],
    ["a number that no double holds", "12345678901234567890", /cannot be held exactly/],
  ];
  it.each(results)("and returns %s is not believed", async (_, json, says) => {
    const result = await runOn(`${answer(json)} ready();`);
    expect(result).toMatchObject({ end: "exited", exitCode: 1, resultJson: "", error: expect.stringMatching(says) });
  });

  it("and returns more than is allowed has passed its limit", async () => {
    const result = await runOn(`${answer(`"${"x".repeat(99)}"`)} ready();`);
    const limit = { name: "output_bytes", allowed: 100, used: 101 };
    expect(result).toMatchObject({ end: "limit", resultJson: "", limit });
  });

  it("and asks more often than it may gets no answer", async () => {
    const opened = await openWith(
      'for (let id = 1; id <= 70; id++) say({ kind: "ask", run, id, name: "x.y", json: "{}" }); say({ kind: "returned", ...used(run), json: "1" }); ready();',
    );
    let asked = 0;
    const onCall = async () => ({ kind: "value", json: `${++asked}` }) as const;
    await opened.run(SPEC, { signal: new AbortController().signal, onOutput: () => {}, onCall });
    expect(asked).toBeLessThanOrEqual(64);
  });

  it("and makes requests where no host is granted gets no answer, and its call goes on", async () => {
    const fetch = JSON.stringify({ url: "http://127.0.0.1/", method: "GET", headers: [], body: null });
    const asks = `say({ kind: "fetch", run, id: 1, json: ${JSON.stringify(fetch)} });`;
    const heard = 'process.stdin.on("data", () => say({ kind: "grant" }));'; // a reply would end it
    const result = await runOn(`${heard} ${asks} setTimeout(() => { ${answer("1")} ready(); }, 50);`);
    expect(result).toMatchObject({ end: "exited", resultJson: "1" });
    expect(result.egress).toBeUndefined();
  });

  it("and tells of more than it used, or of an error without end, is believed within bounds", async () => {
    const result = await runOn(
      'say({ kind: "threw", run, cpuMs: 1e15, memoryBytes: 1e15, error: "x".repeat(1e6) }); ready();',
    );
    expect(result.usage.cpuMs).toBeLessThan(10_000);
    expect(result.usage.peakMemoryBytes).toBeLessThan(1 << 30);
    expect(result.error.length).toBeLessThan(5_000);
  });

  it("and drops what was never printed, or prints without end, is cut", async () => {
    const flood = 'say({ kind: "output", run, stream: "stdout", dropped: 1e6, text: "x".repeat(1e5) });';
    const result = await runOn(`${flood.repeat(3)} ${answer("1")} ready();`);
    expect(result).toMatchObject({ end: "exited", resultJson: "1", truncated: true });
    expect(Buffer.byteLength(result.stdout)).toBeLessThan(300);
  });

  it("and is replaced: the next call has a worker of its own", async () => {
    const opened = await openWith(
      `say(run % 2 === 0 ? { kind: "grant" } : { kind: "returned", ...used(run), json: "1" }); ready();`,
    );
    const io = { signal: new AbortController().signal, onOutput: () => {} };
    const ends = [];
    for (let i = 0; i < 4; i++) ends.push((await opened.run(SPEC, io)).end);
    expect(ends.filter((end) => end === "lost").length).toBe(2);
    expect(ends.filter((end) => end === "exited").length).toBe(2);
  });
});

it("a call that waits while the runner stops has not begun", async () => {
  const opened = await openWith("");
  const io = { signal: new AbortController().signal, onOutput: () => {} };
  const going = [opened.run(SPEC, io), opened.run(SPEC, io)];
  await opened[Symbol.asyncDispose]();
  expect((await Promise.all(going)).map(({ end }) => end)).toEqual(["lost", "lost"]);
});

it("where workers cannot run, says so and how to mend it, and runs nothing", async () => {
  vi.mocked(planConfinement).mockRejectedValue(new Error("Cannot find module 'isolated-vm'"));
  backend = await openIsolateBackend({ workers: { ...WORKERS, warm: 1 }, log: silentLog });
  const [found, ...others] = await backend.describe();
  expect(others).toEqual([]);
  expect(found).toMatchObject({ kind: "isolate", available: false, enforced: [], missing: [] });
  expect(found?.note).toMatch(/isolated-vm.*make up/);
  const refusal = expect.objectContaining({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE" });
  const opened = backend;
  expect(() => opened.check(SPEC)).toThrow(refusal);
  const going = backend.run(SPEC, { signal: new AbortController().signal, onOutput: () => {} });
  await expect(going).rejects.toThrow(refusal);
});

import { afterEach, describe, expect, it } from "vitest";
import type { Confinement } from "./confine.ts";
import { type FromRun, WorkerProcess } from "./worker-process.ts";

/** Worker processes that a program has taken over: they say what they like. */

const PRELUDE = `
const header = (length) => { const bytes = Buffer.alloc(4); bytes.writeUInt32BE(length); return bytes; };
const raw = (bytes) => process.stdout.write(bytes);
const say = (message) => { const body = Buffer.from(JSON.stringify(message)); raw(Buffer.concat([header(body.length), body])); };
const onRun = (then) => process.stdin.once("data", then);
const ready = () => say({ kind: "ready" });
const used = { run: 1, cpuMs: 0, memoryBytes: 0 };
const returned = { kind: "returned", ...used, json: "1" };
const output = { kind: "output", run: 1, stream: "stdout", dropped: 0, text: "x" };
setInterval(() => {}, 1000);
`;

const opened: WorkerProcess[] = [];
afterEach(async () => {
  for (const worker of opened.splice(0)) {
    worker.kill("the test is over");
    await worker.ended;
  }
});

/** Nothing stands around it. */
function confined(argv: Confinement["argv"]): Confinement {
  return { argv, filter: undefined, dataBytes: 0, enforced: [], missing: [] };
}

function open(script: string): WorkerProcess {
  const worker = new WorkerProcess(confined([process.execPath, "--eval", PRELUDE + script]));
  opened.push(worker);
  return worker;
}

const RUN = {
  kind: "run",
  run: 1,
  code: "",
  input: "{}",
  memoryMb: 8,
  outputBytes: 100,
  mayCall: false,
  mayFetch: false,
  asks: 0,
} as const;

/** Runs a program on it, and says how the worker ended and what was heard before. */
async function runOn(script: string): Promise<{ heard: FromRun[]; why: string; signal: string | null }> {
  const worker = open(script);
  await worker.ready();
  const heard: FromRun[] = [];
  void worker.send(RUN, (message) => heard.push(message));
  return { heard, ...(await worker.ended) };
}

it("that keeps to its turns is heard, and is ready again", async () => {
  const worker = open("ready(); onRun(() => { say(output); say(output); say(returned); ready(); });");
  await worker.ready();
  expect(worker.isReady).toBe(true);
  const heard: string[] = [];
  const again = worker.send(RUN, ({ kind }) => heard.push(kind));
  expect(worker.isReady).toBe(false);
  await again;
  expect([heard, worker.isReady, worker.runs]).toEqual([["output", "output", "returned"], true, 1]);
  expect(worker.cpuMs()).toBeGreaterThan(0);
  expect(worker.residentBytes()).toBeGreaterThan(1 << 20);
});

describe("ended at once is one that sends", () => {
  const lies: [what: string, whenRun: string, why: RegExp][] = [
    ["an unknown kind", 'say({ kind: "grant" })', /unknown message/],
    ["a field too many", 'say({ ...returned, permit: "x" })', /unknown message/],
    ["a field too few", 'say({ kind: "returned", run: 1 })', /unknown message/],
    ["a negative use", "say({ ...returned, cpuMs: -1 })", /unknown message/],
    [
      "a use beyond numbers",
      "raw(Buffer.concat([header(99), Buffer.from(JSON.stringify({ ...returned }).replace('\"cpuMs\":0', '\"cpuMs\":1e999').padEnd(99))]))",
      /unknown message/,
    ],
    ["a stream nobody knows", 'say({ ...output, stream: "audit" })', /unknown message/],
    ["no JSON", 'raw(Buffer.concat([header(3), Buffer.from("abc")]))', /JSON/],
    ["too long a frame", "raw(header(2 ** 31))", /a frame of 2147483648 bytes/],
    ["an answer to another's run", "say({ ...returned, run: 2 })", /not its own/],
    ["ready before its answer", "ready()", /ready out of turn/],
    ["two answers", "say(returned); say(returned)", /returned out of turn/],
    ["output after its answer", "say(returned); say(output)", /output out of turn/],
    ["ready twice", "say(returned); ready(); ready()", /ready out of turn/],
    ["an answer that nobody waits for", "say(returned); ready(); say(returned)", /returned out of turn/],
  ];
  it.each(lies)("%s", async (_, whenRun, why) => {
    const end = await runOn(`ready(); onRun(() => { ${whenRun} });`);
    expect(end.why).toMatch(why);
    expect(end.signal).toBe("SIGKILL");
    expect(end.heard.length).toBeLessThanOrEqual(1);
  });

  it("anything before it is ready", async () => {
    const worker = open("say(returned)");
    await expect(worker.ready()).rejects.toThrow(/returned out of turn/);
  });

  it("a reason as long as it likes, of which little is kept", async () => {
    const { why } = await runOn('ready(); onRun(() => say({ kind: "ready", ["k".repeat(1e6)]: 1 }));');
    expect(why.length).toBeLessThan(600);
  });
});

describe("says how it ended:", () => {
  const ends: [what: string, whenRun: string, signal: string | null, why: RegExp][] = [
    ["by itself", "process.exit(3)", null, /by itself \(exit code 3\)/],
    ["by an abort", "process.abort()", "SIGABRT", /by itself \(SIGABRT\)/],
    ["by a signal", 'process.kill(process.pid, "SIGTERM")', "SIGTERM", /by itself \(SIGTERM\)/],
  ];
  it.each(ends)("%s", async (_, whenRun, signal, why) => {
    const end = await runOn(`ready(); onRun(() => { ${whenRun} });`);
    expect(end).toMatchObject({ signal, why: expect.stringMatching(why) });
  });

  it("it cannot be started", async () => {
    const worker = new WorkerProcess(confined(["/nowhere/node"]));
    await expect(worker.ready()).rejects.toThrow(/could not be started/);
    expect([worker.isAlive, worker.isReady]).toEqual([false, false]);
  });
});

it("killed, it hears and says nothing more", async () => {
  const worker = open("ready(); onRun(() => setInterval(() => say(output), 1));");
  await worker.ready();
  let heard = 0;
  const first = Promise.withResolvers<void>();
  void worker.send(RUN, () => {
    heard++;
    first.resolve();
  });
  await first.promise;
  worker.kill("enough");
  const before = heard;
  expect(await worker.ended).toEqual({ signal: "SIGKILL", why: "enough" });
  expect(heard).toBe(before);
});

it("gets an empty environment, and no folder of ours to stand in", async () => {
  const worker = open(
    'ready(); onRun(() => say({ kind: "threw", ...used, error: JSON.stringify([process.env, process.cwd()]) }));',
  );
  await worker.ready();
  const said = await new Promise<FromRun>((resolve) => void worker.send(RUN, resolve));
  expect(said).toMatchObject({ kind: "threw", error: '[{},"/"]' });
});

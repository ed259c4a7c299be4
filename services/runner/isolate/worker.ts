import type ivm from "isolated-vm";
import { MAX_BINDING_CALLS, OPERATIONS } from "./bindings.ts";
import { FrameReader, toFrame } from "./frames.ts";
import type { FromWorker, ToWorker } from "./messages.ts";
import { Printed } from "./printed.ts";

/**
 * The program of a worker process: one isolate after another, each for one run. It has two pipes and nothing else:
 * no network, files, environment or privileges (confine.ts). It keeps no clock: whatever takes too long is ended from
 * outside, by SIGKILL, the only thing that ends every program.
 */

type Run = Extract<ToWorker, { kind: "run" }>;

/** An isolate that is ready for its one program, and then has it. */
type Guest = {
  readonly isolate: ivm.Isolate;
  readonly context: ivm.Context;
  readonly run: ivm.Reference;
  readonly deliver: ivm.Reference;
  readonly tick: ivm.Reference;
  readonly memoryMb: number;
  program: Program | undefined;
};

/** What the bindings of one isolate serve while its program runs. After that they do nothing. */
type Program = {
  readonly message: Run;
  readonly printed: Printed;
  asks: number;
  bindingCalls: number;
  alarm: NodeJS.Timeout | undefined;
};

type Limit = Extract<FromWorker, { kind: "limit" }>["limit"];

type Outcome =
  | { readonly kind: "returned"; readonly json: string }
  | { readonly kind: "threw"; readonly error: string }
  | { readonly kind: "limit"; readonly limit: Limit; readonly amount: number };

const USUAL_MEMORY_MB = 128;
const MAX_ERROR_CHARS = 4096;
const MAX_FRAME_BYTES = 8 << 20;
const MAX_NAME_CHARS = 2048;
const MAX_ASK_CHARS = 1 << 20;
const HEADER = "(async function (input, console) {";
/** Compiled programs kept, of this process's one tenant. */
const MAX_COMPILED = 32;

const addon = { exports: {} as { ivm: typeof ivm } };
process.dlopen(addon, process.argv[1] ?? "");
const { Isolate, Callback } = addon.exports.ivm;

const snapshot = Isolate.createSnapshot([{ code: process.argv[2] ?? "", filename: "interlock.js" }]);
/** What V8 made of the programs run here last. Only ever what this process itself made. */
const compiled = new Map<string, ivm.ExternalCopy<ArrayBuffer>>();
let current: Guest | undefined;
let next = prepare(USUAL_MEMORY_MB);
const reader = new FrameReader(MAX_FRAME_BYTES);
process.stdin.on("data", (chunk: Uint8Array) => {
  for (const message of reader.push(chunk) as ToWorker[]) {
    switch (message.kind) {
      case "run":
        void run(message);
        break;
      case "reply":
        if (message.run === current?.program?.message.run) call(current.deliver, [message.id, message.json]);
        break;
    }
  }
});
// The runner is gone. As the first process of its namespace it cannot be killed by its own SIGKILL.
process.stdin.on("end", () => process.abort());
send({ kind: "ready" });

/** A fresh isolate, made while nothing waits for it. */
function prepare(memoryMb: number): Guest {
  const isolate = new Isolate({ memoryLimit: memoryMb, snapshot, onCatastrophicError: () => process.abort() });
  const context = isolate.createContextSync();
  const guest = { isolate, context, memoryMb, program: undefined as Program | undefined };
  const host = bindingsOf(guest);
  const boot: ivm.Reference = context.global.getSync("$boot", { reference: true });
  const booted: ivm.Reference = boot.applySync(undefined, host, { result: { reference: true } });
  const part = (name: string): ivm.Reference => booted.getSync(name, { reference: true });
  return Object.assign(guest, { run: part("run"), deliver: part("deliver"), tick: part("tick") });
}

/** All that a program reaches of this process. Each takes what it is given for hostile, and throws nothing of ours. */
function bindingsOf(guest: Pick<Guest, "program">): ivm.Callback[] {
  /** Told at once: the program may never let go of this thread. The runner ends it. */
  const stop = (program: Program, limit: Limit, amount: number): undefined => {
    guest.program = undefined;
    program.printed.flush();
    send({ kind: "limit", run: program.message.run, cpuMs: 0, memoryBytes: 0, limit, amount });
  };
  /** The program that calls, unless it has ended or called too often. */
  const counted = (): Program | undefined => {
    const { program } = guest;
    if (program === undefined || ++program.bindingCalls <= MAX_BINDING_CALLS) return program;
    return stop(program, "binding_calls", program.bindingCalls);
  };
  const log = (stream: unknown, text: unknown): void => {
    if (typeof text === "string") counted()?.printed.write(stream === "stderr" ? "stderr" : "stdout", text);
  };
  const leave = (may: "mayCall" | "mayFetch", id: unknown, json: unknown, name?: string): void => {
    const program = counted();
    if (program === undefined) return;
    const { asks, run } = program.message;
    if (!program.message[may] || typeof id !== "number" || !Number.isSafeInteger(id) || id < 1) return;
    if (typeof json !== "string" || json.length > MAX_ASK_CHARS) return;
    if (++program.asks > asks) {
      stop(program, "tool_calls", program.asks);
      return;
    }
    program.printed.flush();
    send(name === undefined ? { kind: "fetch", run, id, json } : { kind: "ask", run, id, name, json });
  };
  const ask = (id: unknown, name: unknown, json: unknown): void => {
    if (typeof name === "string" && name.length <= MAX_NAME_CHARS) leave("mayCall", id, json, name);
    else counted();
  };
  const fetch = (id: unknown, json: unknown): void => leave("mayFetch", id, json);
  const wake = (ms: unknown): void => {
    const program = counted();
    if (program === undefined || typeof ms !== "number") return;
    clearTimeout(program.alarm);
    const asleep = current;
    program.alarm = setTimeout(
      () => {
        if (asleep?.program === program) call(asleep.tick, []);
      },
      Math.min(Math.max(1, ms), 2 ** 31 - 1),
    );
  };
  const now = (operation: unknown, a: unknown, b: unknown): string => {
    if (counted() === undefined) return "eThe program has ended.";
    const perform = typeof operation === "string" ? OPERATIONS.get(operation) : undefined;
    if (perform === undefined || typeof a !== "string" || typeof b !== "string") return "eThere is no such binding.";
    try {
      return `r${perform(a, b)}`;
    } catch (error) {
      return `e${error instanceof Error ? error.message.slice(0, 300) : "It failed."}`;
    }
  };
  return [log, ask, wake, now, fetch].map((binding) => new Callback(binding));
}

/** Whatever comes of it, a program that throws, or that has been ended, is no concern of the worker. */
function call(what: ivm.Reference, args: readonly (string | number)[]): void {
  what.apply(undefined, [...args]).catch(() => {});
}

async function run(message: Run): Promise<void> {
  if (next.memoryMb !== message.memoryMb) {
    next.isolate.dispose();
    next = prepare(message.memoryMb);
  }
  const guest = next;
  current = guest;
  const printed = new Printed(message.outputBytes, (chunk) => send({ kind: "output", run: message.run, ...chunk }));
  const program: Program = { message, printed, asks: 0, bindingCalls: 0, alarm: undefined };
  guest.program = program;
  const before = guest.isolate.cpuTime;
  const outcome = await attempt(guest, message);
  clearTimeout(program.alarm);
  if (guest.program === undefined) return; // it passed a limit, and that was all there is to say
  printed.flush();
  guest.program = undefined;
  if (guest.isolate.isDisposed)
    return send({ kind: "oom", run: message.run, cpuMs: 0, memoryBytes: message.memoryMb << 20 });
  const cpuMs = Number(guest.isolate.cpuTime - before) / 1e6;
  if (outcome.kind === "limit") return send({ ...outcome, run: message.run, cpuMs, memoryBytes: 0 });
  const heap = guest.isolate.getHeapStatisticsSync();
  const memoryBytes = heap.total_heap_size + heap.externally_allocated_size;
  send({ ...outcome, run: message.run, cpuMs, memoryBytes });
  guest.isolate.dispose();
  next = prepare(message.memoryMb);
  send({ kind: "ready" });
}

async function attempt(guest: Guest, message: Run): Promise<Outcome> {
  try {
    const { mayCall, mayFetch } = message;
    const script = compile(guest.isolate, message.code);
    const program = script.runSync(guest.context, { reference: true });
    // On a thread of its own: where memory ends, isolated-vm says so on this one, and must find it free.
    const said: unknown = await guest.run.apply(undefined, [program.derefInto(), message.input, mayCall, mayFetch], {
      result: { promise: true },
    });
    return toOutcome(said, message.outputBytes);
  } catch (error) {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return threw(placed(text, message.code));
  }
}

/** V8 counts our closing bracket as a line of the program: what it misses there is missing at the program's end. */
function placed(text: string, code: string): string {
  return text.replace(/ \[program\.js:(\d+):(\d+)\]$/, (_, line: string, column: string) => {
    const lines = code.split("\n");
    if (Number(line) <= lines.length) return ` (program.js:${line}:${column})`;
    return `, where the program ends (program.js:${lines.length}:${(lines.at(-1) ?? "").length + 1})`;
  });
}

function compile(isolate: ivm.Isolate, code: string): ivm.Script {
  const origin = { filename: "program.js", columnOffset: -HEADER.length };
  const source = `${HEADER}${code}\n})`;
  const known = compiled.get(code);
  if (known !== undefined) return isolate.compileScriptSync(source, { ...origin, cachedData: known });
  const script = isolate.compileScriptSync(source, { ...origin, produceCachedData: true });
  const { cachedData } = script as ivm.Script & ivm.CachedDataResult;
  if (cachedData !== undefined) compiled.set(code, cachedData);
  const [oldest] = compiled.keys();
  if (compiled.size > MAX_COMPILED && oldest !== undefined) {
    compiled.get(oldest)?.release();
    compiled.delete(oldest);
  }
  return script;
}

function toOutcome(said: unknown, outputBytes: number): Outcome {
  if (typeof said !== "string") return threw("The program changed how its result is returned.");
  const rest = said.slice(1);
  switch (said[0]) {
    case "u":
      return { kind: "returned", json: "" };
    case "r": {
      const bytes = Buffer.byteLength(rest);
      if (bytes <= outputBytes) return { kind: "returned", json: rest };
      return { kind: "limit", limit: "output_bytes", amount: bytes };
    }
    default:
      return threw(rest);
  }
}

function threw(error: string): Outcome {
  return { kind: "threw", error: error.slice(0, MAX_ERROR_CHARS) };
}

function send(message: FromWorker): void {
  process.stdout.write(toFrame(message));
}

import type ivm from "isolated-vm";
import { FrameReader, toFrame } from "./frames.ts";
import { GUEST } from "./guest.ts";
import type { FromWorker, ToWorker } from "./messages.ts";

/**
 * The program of a worker process: one isolate after another, each for one run. It has two pipes and nothing else:
 * no network, files, environment or privileges (confine.ts). It keeps no clock: whatever takes too long is ended from
 * outside, by SIGKILL, the only thing that ends every program.
 */

type Guest = {
  readonly isolate: ivm.Isolate;
  readonly context: ivm.Context;
  readonly start: ivm.Reference;
  readonly memoryMb: number;
  /** Where the log callback writes; the isolate's own run. */
  output: Output | undefined;
};

const USUAL_MEMORY_MB = 128;
const MAX_ERROR_CHARS = 4096;
const MAX_FRAME_BYTES = 8 << 20;
/** How long output may gather before it goes out. */
const FLUSH_MS = 10;
const FLUSH_FLOOD_MS = 100;
const HEADER = "(async function (input, console) {";

const addon = { exports: {} as { ivm: typeof ivm } };
process.dlopen(addon, process.argv[1] ?? "");
const { Isolate, Callback } = addon.exports.ivm;

let next = prepare(USUAL_MEMORY_MB);
const reader = new FrameReader(MAX_FRAME_BYTES);
process.stdin.on("data", (chunk: Uint8Array) => {
  for (const message of reader.push(chunk)) void run(message as ToWorker);
});
process.stdin.on("end", () => process.kill(process.pid, "SIGKILL"));
send({ kind: "ready" });

/** A fresh isolate, made while nothing waits for it. */
function prepare(memoryMb: number): Guest {
  const isolate = new Isolate({ memoryLimit: memoryMb, onCatastrophicError: () => process.abort() });
  const context = isolate.createContextSync();
  const guest = { isolate, context, memoryMb, output: undefined as Output | undefined };
  const log = new Callback((stream: unknown, text: unknown) => {
    if (typeof text === "string") guest.output?.write(stream === "stderr" ? "stderr" : "stdout", text);
  });
  const start: ivm.Reference = context.evalClosureSync(GUEST, [log], {
    filename: "interlock.js",
    result: { reference: true },
  });
  return Object.assign(guest, { start });
}

async function run(message: ToWorker): Promise<void> {
  if (next.memoryMb !== message.memoryMb) {
    next.isolate.dispose();
    next = prepare(message.memoryMb);
  }
  const guest = next;
  guest.output = new Output(message.run, message.outputBytes);
  const before = guest.isolate.cpuTime;
  const outcome = await attempt(guest, message);
  guest.output.flush();
  guest.output = undefined;
  if (guest.isolate.isDisposed)
    return send({ kind: "oom", run: message.run, cpuMs: 0, memoryBytes: message.memoryMb << 20 });
  const heap = guest.isolate.getHeapStatisticsSync();
  const used = {
    run: message.run,
    cpuMs: Number(guest.isolate.cpuTime - before) / 1e6,
    memoryBytes: heap.total_heap_size + heap.externally_allocated_size,
  };
  send({ ...outcome, ...used });
  guest.isolate.dispose();
  next = prepare(message.memoryMb);
  send({ kind: "ready" });
}

type Outcome = { kind: "returned"; json: string } | { kind: "threw"; error: string };

async function attempt(guest: Guest, message: ToWorker): Promise<Outcome> {
  try {
    const origin = { filename: "program.js", columnOffset: -HEADER.length };
    const script = await guest.isolate.compileScript(`${HEADER}${message.code}\n})`, origin);
    const program = await script.run(guest.context, { reference: true });
    const said: unknown = await guest.start.apply(
      undefined,
      [program.derefInto(), message.input, message.outputBytes],
      { result: { promise: true } },
    );
    return toOutcome(said, message.outputBytes);
  } catch (error) {
    return threw(error instanceof Error ? `${error.name}: ${error.message}` : String(error));
  }
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
      return threw(`The result is ${bytes} bytes; ${outputBytes} are allowed. Return less.`);
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

/**
 * What a run printed and the runner has not seen. The first of it goes out soon; beyond the limit only a tail is kept,
 * so that a flood costs the runner little.
 */
class Output {
  readonly #run: number;
  readonly #limit: number;
  readonly #streams: { readonly stdout: Printed; readonly stderr: Printed };
  #timer: NodeJS.Timeout | undefined;

  constructor(run: number, limit: number) {
    this.#run = run;
    this.#limit = limit;
    this.#streams = { stdout: nothingPrinted(limit), stderr: nothingPrinted(limit) };
  }

  write(stream: "stdout" | "stderr", text: string): void {
    const printed = this.#streams[stream];
    const head = text.slice(0, printed.room);
    printed.room -= head.length;
    printed.head += head;
    printed.tail += text.slice(head.length);
    const excess = printed.tail.length - this.#limit;
    if (excess > this.#limit) {
      printed.dropped += Buffer.byteLength(printed.tail.slice(0, excess));
      printed.tail = printed.tail.slice(excess);
    }
    this.#timer ??= setTimeout(() => this.flush(), printed.room > 0 ? FLUSH_MS : FLUSH_FLOOD_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const stream of ["stdout", "stderr"] as const) {
      const printed = this.#streams[stream];
      const { head, tail, dropped } = printed;
      if (head !== "") send({ kind: "output", run: this.#run, stream, dropped: 0, text: head });
      if (tail !== "") send({ kind: "output", run: this.#run, stream, dropped, text: tail });
      Object.assign(printed, { head: "", tail: "", dropped: 0 });
    }
  }
}

type Printed = { room: number; head: string; tail: string; dropped: number };

function nothingPrinted(limit: number): Printed {
  return { room: limit, head: "", tail: "", dropped: 0 };
}

/**
 * What runner and harness say to each other: sandbox-images/PROTOCOL.md. What comes from a sandbox is hostile: a frame
 * is read only if it is one, and no longer than a harness of ours would make it.
 */

export const PROTOCOL_VERSION = 1;
/** Of what follows a frame's length, from the sandbox: a chunk of 32 KiB, a type and an id. */
const MAX_ANSWER = (32 << 10) + 5;
/** The harness takes frames of 1 MiB. */
const STDIN_CHUNK = 64 << 10;

/** Of what is uploaded: the workspace is mounted noexec anyway. */
const FILE_MODE = 0o644;
const REQUEST = { run: 1, stdin: 2, signal: 3, put: 4, putData: 5, get: 6, list: 7 } as const;

export type Answer =
  | { readonly kind: "hello"; readonly version: number }
  | { readonly kind: "stdout" | "stderr" | "data"; readonly id: number; readonly bytes: Buffer }
  | { readonly kind: "exit"; readonly id: number; readonly exit: Exit }
  | { readonly kind: "entry"; readonly id: number; readonly entry: Entry }
  | { readonly kind: "done"; readonly id: number }
  | { readonly kind: "failed"; readonly id: number; readonly errno: number };

export type Exit = {
  /** As a shell has it: 128 and the signal's number where one ended it. */
  readonly exitCode: number;
  readonly cpuMs: number;
  readonly peakMemoryBytes: number;
};

export type Entry = {
  readonly name: string;
  readonly type: "file" | "directory" | "link" | "other";
  readonly mode: number;
  readonly size: number;
};

/** Takes whole answers out of bytes that come cut anywhere. */
export class AnswerParser {
  readonly #onAnswer: (answer: Answer) => void;
  #held: Buffer = Buffer.alloc(0);

  constructor(onAnswer: (answer: Answer) => void) {
    this.#onAnswer = onAnswer;
  }

  /** @throws Error when these are no such answers; nothing can follow. */
  write(chunk: Buffer): void {
    let rest = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (rest.length >= 4) {
      const length = rest.readUInt32BE(0);
      if (length < 5 || length > MAX_ANSWER) throw new Error(`a frame of ${length} bytes`);
      if (rest.length < 4 + length) break;
      this.#onAnswer(parseAnswer(rest.subarray(4, 4 + length)));
      rest = rest.subarray(4 + length);
    }
    this.#held = Buffer.from(rest); // a copy: what it is cut from may be large
  }
}

function parseAnswer(frame: Buffer): Answer {
  const type = frame.readUInt8(0);
  const id = frame.readUInt32BE(1);
  const body = frame.subarray(5);
  const expectBytes = (length: number): void => {
    if (body.length !== length) throw new Error(`a frame of type ${type} with ${body.length} bytes`);
  };
  switch (type) {
    case 16:
      expectBytes(1);
      return { kind: "hello", version: body.readUInt8(0) };
    case 17:
      return { kind: "stdout", id, bytes: body };
    case 18:
      return { kind: "stderr", id, bytes: body };
    case 19:
      expectBytes(21);
      return { kind: "exit", id, exit: parseExit(body) };
    case 20:
      return { kind: "data", id, bytes: body };
    case 21:
      return { kind: "entry", id, entry: parseEntry(body) };
    case 22:
      expectBytes(0);
      return { kind: "done", id };
    case 23:
      expectBytes(4);
      return { kind: "failed", id, errno: body.readUInt32BE(0) };
    default:
      throw new Error(`a frame of type ${type}`);
  }
}

function parseExit(body: Buffer): Exit {
  const signalled = body.readUInt8(0) !== 0;
  const code = body.readUInt32BE(1);
  if (code > (signalled ? 64 : 255)) throw new Error(`an exit code of ${code}`);
  const exitCode = signalled ? 128 + code : code;
  const [cpuMs, peakMemoryBytes] = [body.readBigUInt64BE(5), body.readBigUInt64BE(13)].map(Number) as [number, number];
  return { exitCode, cpuMs: Math.ceil(cpuMs / 1000), peakMemoryBytes };
}

const ENTRY_TYPES = new Map([
  ["f", "file"],
  ["d", "directory"],
  ["l", "link"],
  ["o", "other"],
] as const);

function parseEntry(body: Buffer): Entry {
  const type = ENTRY_TYPES.get(String.fromCharCode(body[0] ?? 0) as "f");
  const name = body.subarray(13).toString("utf8");
  if (type === undefined || body.length > 13 + 255 || /^$|^\.{1,2}$|[/\0]/.test(name)) {
    throw new Error("a directory entry that is none");
  }
  return { type, name, mode: body.readUInt32BE(1), size: Number(body.readBigUInt64BE(5)) };
}

export type HarnessRun = {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Of each process. */
  readonly cpuSeconds: number;
  /** What it leaves running goes on: only in sessions. */
  readonly keepsOthers: boolean;
};

export function runRequest(id: number, run: HarnessRun): Buffer {
  const env = Object.entries(run.env).map(([name, value]) => `${name}=${value}`);
  const head = Buffer.alloc(9);
  head.writeUInt8(run.keepsOthers ? 1 : 0, 0);
  head.writeUInt32BE(run.cpuSeconds, 1);
  head.writeUInt16BE(run.command.length, 5);
  head.writeUInt16BE(env.length, 7);
  return request(REQUEST.run, id, head, ...[...run.command, ...env].map(nulTerminated));
}

/** All of it, and its end. */
export function* stdinRequests(id: number, text: string): Generator<Buffer> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += STDIN_CHUNK) {
    yield request(REQUEST.stdin, id, bytes.subarray(at, at + STDIN_CHUNK));
  }
  yield request(REQUEST.stdin, id);
}

export function signalRequest(id: number, signal: number): Buffer {
  return request(REQUEST.signal, id, Buffer.from([signal]));
}

export function* putRequests(id: number, path: string, content: Buffer): Generator<Buffer> {
  const head = Buffer.alloc(4);
  head.writeUInt32BE(FILE_MODE);
  yield request(REQUEST.put, id, head, nulTerminated(path));
  for (let at = 0; at < content.length; at += STDIN_CHUNK) {
    yield request(REQUEST.putData, id, content.subarray(at, at + STDIN_CHUNK));
  }
  yield request(REQUEST.putData, id);
}

export function getRequest(id: number, path: string, mostBytes: number): Buffer {
  const head = Buffer.alloc(8);
  head.writeBigUInt64BE(BigInt(mostBytes));
  return request(REQUEST.get, id, head, nulTerminated(path));
}

export function listRequest(id: number, path: string): Buffer {
  return request(REQUEST.list, id, nulTerminated(path));
}

function request(type: number, id: number, ...parts: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(9);
  head.writeUInt32BE(5 + parts.reduce((sum, part) => sum + part.length, 0), 0);
  head.writeUInt8(type, 4);
  head.writeUInt32BE(id, 5);
  return Buffer.concat([head, ...parts]);
}

/** @throws Error for a text that would end early. */
function nulTerminated(text: string): Buffer {
  if (text.includes("\0")) throw new Error("a NUL in a command, a variable or a path");
  return Buffer.from(`${text}\0`);
}

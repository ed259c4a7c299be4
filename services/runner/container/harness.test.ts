import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ContainerBackend } from "../container.ts";
import { AnswerParser } from "./harness.ts";
import { openTestBackend, type Program, runIn, whyNoEngine } from "./test-engine.ts";

/** What a harness may not send, frame by frame: each ends the sandbox that it comes from. */
describe("an answer", () => {
  const frame = (type: number, body: Buffer | string = "", id = 1): Buffer => {
    const head = Buffer.alloc(9);
    head.writeUInt32BE(5 + Buffer.byteLength(body));
    head.writeUInt8(type, 4);
    head.writeUInt32BE(id, 5);
    return Buffer.concat([head, Buffer.from(body)]);
  };
  const exit = (signalled: number, code: number): Buffer => {
    const body = Buffer.alloc(21);
    body.writeUInt8(signalled);
    body.writeUInt32BE(code, 1);
    body.writeBigUInt64BE(1_500n, 5);
    body.writeBigUInt64BE(4096n, 13);
    return frame(19, body);
  };
  const entry = (type: string, name: string): Buffer =>
    frame(21, Buffer.concat([Buffer.from(type), Buffer.alloc(12), Buffer.from(name)]));

  const refused: [name: string, bytes: Buffer][] = [
    ["with a giant length", Buffer.from([0xff, 0xff, 0xff, 0xff])],
    ["longer than a chunk", frame(17, Buffer.alloc((32 << 10) + 1))],
    ["without a type", Buffer.from([0, 0, 0, 0])],
    ["without an id", Buffer.from([0, 0, 0, 4, 17, 0, 0, 0])],
    ["of an unknown type", frame(99)],
    ["that is a request", frame(1)],
    ["that greets with more than a version", frame(16, "ab")],
    ["of an exit that is cut", frame(19, Buffer.alloc(20))],
    ["of an exit with a code that is none", exit(0, 256)],
    ["of an exit by a signal that is none", exit(1, 65)],
    ["that is done with something more", frame(22, "x")],
    ["of a failure without a number", frame(23, "x")],
    ["of an entry of no kind", entry("z", "name")],
    ["of an entry without a name", entry("f", "")],
    ["of an entry above", entry("d", "..")],
    ["of an entry with a path", entry("f", "a/b")],
    ["of an entry with a name too long", entry("f", "a".repeat(256))],
  ];
  test.each(refused)("%s is refused", (_, bytes) => {
    expect(() => new AnswerParser(() => {}).write(bytes)).toThrow();
  });

  test("is read whole, however it is cut", () => {
    const stream = Buffer.concat([
      frame(16, "\x01", 0),
      frame(17, "é"),
      exit(1, 9),
      entry("l", "ä b"),
      frame(22),
      frame(20),
    ]);
    for (const size of [1, 2, 3, 7, stream.length]) {
      const answers: unknown[] = [];
      const parser = new AnswerParser((answer) =>
        answers.push("bytes" in answer ? { ...answer, bytes: answer.bytes.toString() } : answer),
      );
      for (let at = 0; at < stream.length; at += size) parser.write(stream.subarray(at, at + size));
      expect(answers).toEqual([
        { kind: "hello", version: 1 },
        { kind: "stdout", id: 1, bytes: "é" },
        { kind: "exit", id: 1, exit: { exitCode: 137, cpuMs: 2, peakMemoryBytes: 4096 } },
        { kind: "entry", id: 1, entry: { name: "ä b", type: "link", mode: 0, size: 0 } },
        { kind: "done", id: 1 },
        { kind: "data", id: 1, bytes: "" },
      ]);
    }
  });
});

const skipped = await whyNoEngine();
type Image = Program["image"];
type Behaviour = {
  readonly name: string;
  /** The same program in each language. */
  readonly programs: Readonly<Record<Image, string>>;
  readonly argumentsJson?: string;
  readonly expected: object;
};

const INTERPRETERS: Readonly<Record<Image, readonly string[]>> = {
  python: ["python3", "-c"],
  node: ["node", "-e"],
  shell: ["bash", "-c"],
};

/** One table for all images: what a harness does is the same whatever it runs. */
const BEHAVIOURS: readonly Behaviour[] = [
  {
    name: "gives it its arguments and takes its value",
    programs: {
      python: "import json,sys; print(json.load(sys.stdin)['n'] + 1)",
      node: "console.log(JSON.parse(fs.readFileSync(0)).n + 1)",
      shell: "jq '.n + 1'",
    },
    argumentsJson: '{"n":1}',
    expected: { end: "exited", exitCode: 0, resultJson: "2", stderr: "" },
  },
  {
    name: "keeps its streams apart, and tells its exit code",
    programs: {
      python: "import sys; print('a'); print('b', file=sys.stderr); sys.exit(7)",
      node: "console.log('a'); console.error('b'); process.exit(7)",
      shell: "echo a; echo b >&2; exit 7",
    },
    expected: { end: "exited", exitCode: 7, stdout: "a\n", stderr: "b\n" },
  },
  {
    name: "tells by which signal it ended",
    programs: {
      python: "import os; os.kill(os.getpid(), 15)",
      node: "process.kill(process.pid, 'SIGTERM'); setTimeout(() => {}, 9999)",
      shell: "kill -TERM $$",
    },
    expected: { end: "exited", exitCode: 143 },
  },
  {
    name: "waits for no child that holds its pipes",
    programs: {
      python: "import subprocess; subprocess.Popen(['sleep', '60']); print(1)",
      node: "require('child_process').spawn('sleep', ['60'], { stdio: 'inherit', detached: true }).unref(); console.log(1)",
      shell: "sleep 60 & disown; echo 1",
    },
    expected: { end: "exited", exitCode: 0, resultJson: "1" },
  },
  {
    name: "starts it in the workspace, as the leader of a session of its own",
    programs: {
      python: "import os,json; print(json.dumps([os.getcwd(), os.getsid(0) == os.getpid(), os.getppid()]))",
      node: "console.log(JSON.stringify([process.cwd(), require('fs').readFileSync('/proc/self/stat','utf8').split(' ')[5] == process.pid, process.ppid]))",
      shell: 'read -r _ _ _ parent _ sid _ < /proc/$$/stat; jq -cn --arg cwd "$PWD" "[\\$cwd, $sid == $$, $parent]"',
    },
    expected: { resultJson: '["/work",true,1]' },
  },
  {
    name: "passes on what is no text, and cuts none",
    programs: {
      python: "import os; os.write(1, 'ä€😀'.encode() * 20000)",
      node: "fs.writeSync(1, ''); process.stdout.write('ä€😀'.repeat(20000))",
      shell: "for ((i = 0; i < 20000; i++)); do printf 'ä€😀'; done",
    },
    expected: {
      end: "exited",
      truncated: true,
      stdout: expect.stringMatching(/^[ä€😀]+\n\[\.\.\. \d+ bytes cut \.\.\.\]\n[ä€😀]+$/u),
    },
  },
  {
    name: "ends it with its wall clock",
    programs: {
      python: "import time; print(1, flush=True); time.sleep(60)",
      node: "console.log(1); setTimeout(() => {}, 60000)",
      shell: "echo 1; sleep 60",
    },
    expected: { end: "timeout", stdout: "1\n" },
  },
];

describe.skipIf(skipped !== "").each(["python", "node", "shell"] as const)(`the harness of %s ${skipped}`, (image) => {
  let backend: ContainerBackend;
  beforeAll(async () => {
    backend = await openTestBackend({ warm: 1 });
  });
  afterAll(() => backend[Symbol.asyncDispose]());

  test.each(BEHAVIOURS)("$name", async ({ programs, argumentsJson = "{}", expected }) => {
    const limits = { wallMs: 2_500, memoryBytes: 128 << 20, cpuMs: 5_000 };
    const program = { image, command: [...INTERPRETERS[image], programs[image]], argumentsJson, limits };
    expect(await runIn(backend, program)).toMatchObject(expected);
  });
});

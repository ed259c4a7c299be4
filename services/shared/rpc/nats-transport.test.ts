import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect as connectTcp } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setImmediate as turn } from "node:timers/promises";
import { connect, createInbox, type Msg, type NatsConnection, headers as newHeaders } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EchoService } from "../../../test/contract/proto/interlock/test/v1/echo_pb.ts";
import { collect, ECHO, type EchoHandlers, texts, untilAborted } from "../../../test/contract/rpc-echo.ts";
import { eventually, refusalOf } from "../../../test/support/clients.ts";
import { type RunningNats, startNats } from "../../../test/support/nats.ts";
import { silentLog } from "../log.ts";
import { RpcError } from "./errors.ts";
import { natsClient } from "./nats-client.ts";
import { serveNats } from "./nats-server.ts";
import { parseFailure, parseFrame, WINDOW } from "./nats-wire.ts";
import { service } from "./service.ts";
import type { Caller, Client } from "./types.ts";

/** What NATS brings besides what every transport does (test/contract/rpc.test.ts): a bus on which others speak, and die. */

const CALLER: Caller = { kind: "service", name: "broker" };
const shared = new AsyncDisposableStack();
let nats: RunningNats;
beforeAll(async () => {
  nats = shared.use(await startNats({ jetstream: false }));
});
afterAll(() => shared.disposeAsync());

/** The far side and the near one, and what ends with them. */
type Bus = AsyncDisposable & {
  readonly near: NatsConnection;
  readonly client: Client<typeof EchoService>;
  connect(): Promise<NatsConnection>;
  serve(handlers: Partial<EchoHandlers>, instance?: string): Promise<AsyncDisposable>;
};

async function openBus(url = nats.url): Promise<Bus> {
  const stack = new AsyncDisposableStack();
  const open = async (): Promise<NatsConnection> => {
    const connection = await connect({ servers: url, maxReconnectAttempts: -1, reconnectTimeWait: 50 });
    stack.defer(() => connection.close());
    return connection;
  };
  const near = await open();
  return {
    near,
    client: natsClient(EchoService, near, { caller: CALLER }),
    connect: open,
    serve: async (handlers, instance) => {
      const far = await open();
      const options = { queue: "echo", log: silentLog, ...(instance === undefined ? {} : { instance }) };
      const server = serveNats(far, [service(EchoService, { ...ECHO, ...handlers })], options);
      stack.use(server);
      await far.flush();
      return server;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

describe("finding a service", () => {
  it("says at once that nobody serves it", async () => {
    await using bus = await openBus();
    const calls = [
      bus.client.say({}),
      bus.client.say({}, { instance: "nobody" }),
      collect(bus.client.count({ to: 1 })),
      collect(bus.client.chat(texts("one"))),
    ];
    for (const call of calls) {
      expect(await refusalOf(call)).toMatchObject({ code: "UNAVAILABLE", reason: "NO_RESPONDER" });
    }
  });

  it("spreads what is sent to any, and takes to one what is sent to it", async () => {
    await using bus = await openBus();
    const served = { one: 0, two: 0 };
    for (const name of ["one", "two"] as const) {
      const say = async () => {
        served[name] += 1;
        return { text: name };
      };
      await bus.serve({ say }, name);
    }
    await Promise.all(Array.from({ length: 200 }, () => bus.client.say({})));
    expect(served.one + served.two).toBe(200);
    expect(Math.min(served.one, served.two)).toBeGreaterThan(0);
    const answers = await Promise.all(Array.from({ length: 20 }, () => bus.client.say({}, { instance: "two" })));
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set(["two"]));
    expect((await refusalOf(bus.client.say({}, { instance: "three" }))).reason).toBe("NO_RESPONDER");
  });
});

const HEAD = { "interlock-call": "c1", "interlock-caller": JSON.stringify(CALLER) };
const SAY = "interlock.rpc.EchoService.Say";

/** A request by hand. Its answer: a frame's kind and, if it is a failure, what it says. */
async function ask(connection: NatsConnection, subject: string, head: Record<string, string>, data?: Uint8Array) {
  const headers = newHeaders();
  for (const [name, value] of Object.entries(head)) headers.set(name, value);
  const inbox = createInbox();
  const heard = Promise.withResolvers<Msg>();
  connection.subscribe(inbox, { max: 1, callback: (_, message) => heard.resolve(message) });
  connection.publish(subject, data, { reply: inbox, headers });
  const message = await heard.promise;
  const { kind } = parseFrame(message) ?? { kind: "no frame" };
  return { kind, ...(kind === "failure" ? pick(parseFailure(message.data)) : {}) };
}

function pick({ code, reason }: RpcError) {
  return { code, reason };
}

/** What the client would not send: bytes as they are, on a connection of their own. */
async function sendRaw(...lines: readonly { subject: string; reply?: string; headers: string; data?: string }[]) {
  const socket = connectTcp(nats.port, "127.0.0.1");
  socket.write('CONNECT {"verbose":false,"headers":true}\r\n');
  for (const { subject, reply = "", headers, data = "" } of lines) {
    const [head, all] = [Buffer.byteLength(headers), Buffer.byteLength(headers + data)];
    socket.write(`HPUB ${subject} ${reply} ${head} ${all}\r\n${headers}${data}\r\n`);
  }
  socket.write("PING\r\n");
  for await (const chunk of socket) if (String(chunk).includes("PONG")) break;
  socket.destroy();
}

const ONE_LINE = "NATS/1.0\r\n";
const RAW_HEADERS: readonly (readonly [string, string])[] = [
  ["no key", `${ONE_LINE}: value\r\n\r\n`],
  ["a key that is none", `${ONE_LINE}b\u0001d k(y: value\r\n\r\n`],
  ["bytes that are no text", `${ONE_LINE}\u0000\u0001\u0002\r\n\r\n`],
  ["no line of headers", "\r\n\r\n"],
  ["another version", "HTTP/1.1 200 OK\r\n\r\n"],
];

describe("a request that is none", () => {
  const without = ({ [0]: gone }: readonly [keyof typeof HEAD]) =>
    Object.fromEntries(Object.entries(HEAD).filter(([name]) => name !== gone));
  const caller = (value: unknown) => ({ ...HEAD, "interlock-caller": JSON.stringify(value) });
  it.each<[string, Record<string, string>]>([
    ["has no headers", {}],
    ["has no id", without(["interlock-call"])],
    ["has an id that would be two subjects", { ...HEAD, "interlock-call": "a.b" }],
    ["has an id that goes on and on", { ...HEAD, "interlock-call": "a".repeat(65) }],
    ["has no caller", without(["interlock-caller"])],
    ["has a caller that is no JSON", { ...HEAD, "interlock-caller": "{broker" }],
    ["comes from a caller of another kind", caller({ kind: "root", name: "root" })],
    ["comes from a caller with a field nobody knows", caller({ ...CALLER, admin: true })],
    ["comes from a caller without a name", caller({ kind: "service" })],
    ["comes from a caller of a tenant that is no name", caller({ kind: "agent", tenant: "a.b", agent: "x" })],
    [
      "comes from a person with a role nobody knows",
      caller({ kind: "person", tenant: "t", name: "n", roles: ["root"], groups: [] }),
    ],
    ["has a deadline in words", { ...HEAD, "interlock-deadline": "soon" }],
    ["has a deadline before time began", { ...HEAD, "interlock-deadline": "-1" }],
    ["has a deadline between two", { ...HEAD, "interlock-deadline": "1.5" }],
    ["has a deadline that no number holds", { ...HEAD, "interlock-deadline": "1e400" }],
  ])("is refused when it %s", async (_, head) => {
    await using bus = await openBus();
    await bus.serve({});
    const refused = { kind: "failure", code: "INVALID_ARGUMENT", reason: "REQUEST_MALFORMED" };
    expect(await ask(bus.near, SAY, head)).toEqual(refused);
    expect((await bus.client.say({ text: "still here" })).text).toBe("still here");
  });

  it("is refused when its body is no message, or nothing serves its method", async () => {
    await using bus = await openBus();
    await bus.serve({});
    for (const method of ["Say", "Count"]) {
      const answer = await ask(bus.near, `interlock.rpc.EchoService.${method}`, HEAD, Uint8Array.of(0xff, 1, 2));
      expect(answer).toEqual({ kind: "failure", code: "INVALID_ARGUMENT", reason: "REQUEST_MALFORMED" });
    }
    const answer = await ask(bus.near, "interlock.rpc.EchoService.Whisper", HEAD);
    expect(answer).toEqual({ kind: "failure", code: "UNIMPLEMENTED", reason: "METHOD_UNKNOWN" });
  });

  it.each(RAW_HEADERS)("is refused or ignored when its headers have %s", async (_, headers) => {
    await using bus = await openBus();
    await bus.serve({});
    const heard: Msg[] = [];
    const inbox = createInbox();
    bus.near.subscribe(inbox, { callback: (_error, message) => void heard.push(message) });
    await bus.near.flush();
    await sendRaw(
      { subject: SAY, reply: inbox, headers },
      { subject: SAY, headers }, // nobody to answer
      { subject: SAY, reply: "no\u00a0subject", headers }, // nor here
      { subject: "interlock.rpc-up.EchoService.c1", headers },
    );
    expect((await bus.client.say({ text: "still here" })).text).toBe("still here");
    expect(heard.map((message) => parseFrame(message)?.kind)).toEqual(["failure"]);
  });

  it("is refused when a call of its id is under way, which goes on", async () => {
    await using bus = await openBus();
    const entered = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    await bus.serve({
      say: async () => {
        entered.resolve();
        await released.promise;
        return { text: "the first" };
      },
    });
    const first = ask(bus.near, SAY, HEAD);
    await entered.promise;
    const second = await ask(bus.near, SAY, HEAD);
    expect(second).toEqual({ kind: "failure", code: "ALREADY_EXISTS", reason: "CALL_REPEATED" });
    released.resolve();
    expect(await first).toEqual({ kind: "answer" });
    expect(await ask(bus.near, SAY, HEAD)).toEqual({ kind: "answer" });
  });
});

/** A chat under way, after its first answer, and where its follow-ups go. */
async function openChat(bus: Bus) {
  const call = Promise.withResolvers<string>();
  const spy = await bus.connect();
  spy.subscribe("interlock.rpc.EchoService.Chat", {
    callback: (_, { headers }) => call.resolve(headers?.get("interlock-call") ?? ""),
  });
  await spy.flush();
  const last = Promise.withResolvers<string>();
  async function* requests() {
    yield { text: "first" };
    yield { text: await last.promise };
  }
  const answers = bus.client.chat(requests())[Symbol.asyncIterator]();
  expect(await answers.next()).toMatchObject({ value: { text: "first" } });
  const up = `interlock.rpc-up.EchoService.${await call.promise}`;
  const follow = (head: Record<string, string>): void => {
    const headers = newHeaders();
    for (const [name, value] of Object.entries(head)) headers.set(name, value);
    spy.publish(up, undefined, { headers });
  };
  return { answers, up, follow, finish: () => last.resolve("last"), settled: () => spy.flush() };
}

describe("what follows a request", () => {
  it.each<[string, Record<string, string>]>([
    ["nothing", {}],
    ["a kind that nobody knows", { "interlock-frame": "reboot" }],
    ["a number below zero", { "interlock-frame": "data", "interlock-number": "-1" }],
    ["a number that is none", { "interlock-frame": "credit", "interlock-number": "lots" }],
    ["what only a service says", { "interlock-frame": "answer" }],
    ["more credit than there is room for", { "interlock-frame": "credit", "interlock-number": "9007199254740991" }],
  ])("may be %s: the call goes on", async (_, head) => {
    await using bus = await openBus();
    await bus.serve({});
    const chat = await openChat(bus);
    chat.follow(head);
    await chat.settled();
    chat.finish();
    expect(await chat.answers.next()).toMatchObject({ value: { text: "last" } });
    expect(await chat.answers.next()).toMatchObject({ done: true });
  });

  it.each(RAW_HEADERS)("may have headers with %s: the call goes on", async (_, headers) => {
    await using bus = await openBus();
    await bus.serve({});
    const chat = await openChat(bus);
    await sendRaw({ subject: chat.up, headers, data: "garbage" });
    chat.finish();
    expect(await chat.answers.next()).toMatchObject({ value: { text: "last" } });
  });

  it("ends the call when a message is missing", async () => {
    await using bus = await openBus();
    await bus.serve({});
    const chat = await openChat(bus);
    chat.follow({ "interlock-frame": "data", "interlock-number": "7" });
    expect(await refusalOf(chat.answers.next())).toMatchObject({ code: "DATA_LOSS", reason: "STREAM_GAP" });
  });

  it("ends the call when more is sent than was granted", async () => {
    await using bus = await openBus();
    const flooded = Promise.withResolvers<void>();
    await bus.serve({
      async *chat(requests) {
        const iterator = requests[Symbol.asyncIterator]();
        await iterator.next();
        yield { text: "first" };
        await flooded.promise;
        await iterator.next();
      },
    });
    const chat = await openChat(bus);
    for (let n = 2; n <= 3 * WINDOW; n += 1) chat.follow({ "interlock-frame": "data", "interlock-number": String(n) });
    await chat.settled();
    await turn();
    flooded.resolve();
    expect(await refusalOf(chat.answers.next())).toMatchObject({ reason: "STREAM_FLOOD" });
  });
});

describe("an answer that is none", () => {
  const status = (kind: string) => ({ "interlock-frame": kind });
  it.each<[string, Record<string, string>, string, string]>([
    ["without headers", {}, "ANSWER_MALFORMED", "FRAME_UNEXPECTED"],
    ["of an unknown kind", status("maybe"), "ANSWER_MALFORMED", "FRAME_UNEXPECTED"],
    ["that is no message", status("answer"), "ANSWER_MALFORMED", "FRAME_UNEXPECTED"],
    ["whose failure cannot be read", status("failure"), "FAILURE_MALFORMED", "FAILURE_MALFORMED"],
    ["that skips a message", { ...status("data"), "interlock-number": "5" }, "ANSWER_MALFORMED", "STREAM_GAP"],
    ["that ends before it began", { ...status("end"), "interlock-number": "5" }, "ANSWER_MALFORMED", "STREAM_GAP"],
    [
      "whose message cannot be read",
      { ...status("data"), "interlock-number": "1" },
      "ANSWER_MALFORMED",
      "ANSWER_MALFORMED",
    ],
  ])("fails the call: one %s", async (_, head, unary, stream) => {
    await using bus = await openBus();
    const far = await bus.connect();
    far.subscribe("interlock.rpc.EchoService.*", {
      callback: (_error, message) => {
        const headers = newHeaders();
        for (const [name, value] of Object.entries(head)) headers.set(name, value);
        message.respond(Uint8Array.of(0xff, 1, 2), { headers });
      },
    });
    await far.flush();
    expect((await refusalOf(bus.client.say({}))).reason).toBe(unary);
    expect((await refusalOf(collect(bus.client.count({ to: 1 })))).reason).toBe(stream);
  });

  it("too large to fail with, still fails with its code", async () => {
    await using bus = await openBus();
    const said = { code: "ABORTED", reason: "ECHO_LOST", message: "so ".repeat(1 << 20) } as const;
    await bus.serve({ say: () => Promise.reject(new RpcError(said)) });
    expect(await refusalOf(bus.client.say({}))).toMatchObject({ code: "ABORTED", reason: "ECHO_LOST" });
  });
});

describe("credit", () => {
  it("lets neither side run more than the window ahead", async () => {
    await using bus = await openBus();
    const ahead = { answers: 0, requests: 0 };
    const made = { answers: 0, requests: 0 };
    await bus.serve({
      async *count({ to }) {
        for (; made.answers < to; made.answers += 1) yield { number: made.answers };
      },
      async *chat(requests) {
        let taken = 0;
        for await (const { text } of requests) {
          ahead.requests = Math.max(ahead.requests, made.requests - ++taken);
          for (let n = 0; n < 3; n += 1) await turn();
          if (taken === 600) yield { text };
        }
      },
    });
    let taken = 0;
    for await (const _ of bus.client.count({ to: 600 })) {
      ahead.answers = Math.max(ahead.answers, made.answers - ++taken);
      for (let n = 0; n < 3; n += 1) await turn();
    }
    async function* requests() {
      for (; made.requests < 600; made.requests += 1) yield { text: "x" };
    }
    await collect(bus.client.chat(requests()));
    expect(taken).toBe(600);
    for (const most of [ahead.answers, ahead.requests]) {
      expect(most).toBeGreaterThan(1);
      expect(most).toBeLessThanOrEqual(WINDOW);
    }
  });

  it("is all that is made for a reader who has stopped to read", async () => {
    await using bus = await openBus();
    let made = 0;
    const stuck = Promise.withResolvers<void>();
    await bus.serve({
      async *count(_, { signal }) {
        try {
          for (;;) {
            made += 1;
            if (made === WINDOW) stuck.resolve();
            yield { number: made };
          }
        } finally {
          signal.throwIfAborted();
        }
      },
    });
    const answers = bus.client.count({ to: 1 })[Symbol.asyncIterator]();
    await answers.next();
    await stuck.promise;
    for (let n = 0; n < 20; n += 1) expect((await bus.client.say({ text: "others go on" })).text).not.toBe("");
    expect(made).toBe(WINDOW);
    await answers.return?.();
  });
});

/** A child that serves the echo. */
async function spawnEcho(url: string) {
  const file = join(import.meta.dirname, "../../../test/support/echo-server.ts");
  const child = spawn(process.execPath, [file, url], { stdio: ["ignore", "pipe", "inherit"] });
  const gone = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  expect(await lines.next()).toMatchObject({ value: "ready" });
  return {
    began: async () => expect(await lines.next()).toMatchObject({ value: "began" }),
    kill: async () => {
      child.kill("SIGKILL");
      await gone;
    },
  };
}

describe.concurrent("silence", () => {
  it("of a service that was killed ends its streams, and its calls at their deadline", async ({ expect }) => {
    await using own = await startNats({ jetstream: false });
    await using bus = await openBus(own.url);
    const child = await spawnEcho(own.url);
    try {
      const answers = bus.client.count({ to: 2 })[Symbol.asyncIterator]();
      expect(await answers.next()).toMatchObject({ value: { number: 1 } });
      const waiting = refusalOf(answers.next());
      const unary = refusalOf(bus.client.say({}, { deadlineMs: Date.now() + 2_000 }));
      await child.began();
      await child.kill();
      expect(await unary).toMatchObject({ code: "DEADLINE_EXCEEDED" });
      expect(await waiting).toMatchObject({ code: "UNAVAILABLE", reason: "PEER_LOST" });
      expect((await refusalOf(bus.client.say({}))).reason).toBe("NO_RESPONDER");
    } finally {
      await child.kill();
    }
  });

  it("of a caller that vanished ends its handler", async ({ expect }) => {
    await using own = await startNats({ jetstream: false });
    await using bus = await openBus(own.url);
    const ended = Promise.withResolvers<unknown>();
    await bus.serve({
      async *count(_, { signal }) {
        yield { number: 1 };
        await untilAborted(signal, ended.resolve);
      },
    });
    const gone = await bus.connect();
    const answers = natsClient(EchoService, gone, { caller: CALLER }).count({ to: 2 })[Symbol.asyncIterator]();
    expect(await answers.next()).toMatchObject({ value: { number: 1 } });
    const lost = refusalOf(answers.next());
    await gone.close();
    expect(await lost).toMatchObject({ reason: "CONNECTION_LOST" });
    expect(await ended.promise).toMatchObject({ name: "AbortError" });
  });

  it("is none while both live, however long nothing is said", async ({ expect }) => {
    await using own = await startNats({ jetstream: false });
    await using bus = await openBus(own.url);
    // Longer than a silent side is waited for, by the clock of those who say that they live.
    const signs = Promise.withResolvers<void>();
    let heard = 0;
    (await bus.connect()).subscribe("interlock.rpc-up.EchoService.*", {
      callback: () => {
        heard += 1;
        if (heard === 5) signs.resolve();
      },
    });
    await bus.serve({
      async *count() {
        yield { number: 1 };
        await signs.promise;
        yield { number: 2 };
      },
    });
    expect(await collect(bus.client.count({ to: 2 }))).toHaveLength(2);
  });

  it("of a handler and of NATS too does not hold up a service that stops", async ({ expect }) => {
    await using own = await startNats({ jetstream: false });
    await using bus = await openBus(own.url);
    const entered = Promise.withResolvers<void>();
    const server = await bus.serve({
      say: () => {
        entered.resolve();
        return new Promise(() => {});
      },
    });
    const deaf = refusalOf(bus.client.say({}));
    await entered.promise;
    await own.kill();
    await server[Symbol.asyncDispose]();
    expect((await deaf).reason).toBe("CONNECTION_LOST");
  });
});

describe("NATS gone", () => {
  it("is told at once to whoever waits or comes, and is over once it is back", async () => {
    await using own = await startNats({ jetstream: false });
    await using bus = await openBus(own.url);
    const entered = Promise.withResolvers<void>();
    const restarted = Promise.withResolvers<void>();
    await bus.serve({
      say: async ({ text }) => {
        entered.resolve();
        await restarted.promise;
        return { text };
      },
      async *count() {
        yield { number: 1 };
        await restarted.promise;
      },
    });
    const answers = bus.client.count({ to: 2 })[Symbol.asyncIterator]();
    await answers.next();
    const waiting = [refusalOf(bus.client.say({})), refusalOf(answers.next())];
    await entered.promise;
    await own.kill();
    const lost = { code: "UNAVAILABLE", reason: "CONNECTION_LOST" };
    for (const refusal of waiting) expect(await refusal).toMatchObject(lost);
    expect(await refusalOf(bus.client.say({}))).toMatchObject(lost);
    expect(await refusalOf(collect(bus.client.count({ to: 1 })))).toMatchObject(lost);
    await own.restart();
    restarted.resolve();
    const text = await eventually(
      () => bus.client.say({ text: "back" }),
      (answer) => answer.text === "back",
    );
    expect(text.text).toBe("back");
  });
});

describe("a service that stops", () => {
  it("answers what it has begun, ends its streams, and takes nothing new", async () => {
    await using bus = await openBus();
    const entered = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const server = await bus.serve({
      say: async ({ text }) => {
        entered.resolve();
        await released.promise;
        return { text };
      },
      async *count(_, { signal }) {
        yield { number: 1 };
        await untilAborted(signal, () => {});
      },
    });
    const answers = bus.client.count({ to: 2 })[Symbol.asyncIterator]();
    await answers.next();
    const begun = bus.client.say({ text: "begun" });
    await entered.promise;
    const stopped = server[Symbol.asyncDispose]();
    expect(await refusalOf(answers.next())).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_STOPPING" });
    expect((await refusalOf(bus.client.say({}))).reason).toBe("NO_RESPONDER");
    released.resolve();
    expect((await begun).text).toBe("begun");
    await stopped;
  });

  it("leaves no request that was on its way without an answer", async () => {
    await using bus = await openBus();
    const server = await bus.serve({});
    const calls = Array.from({ length: 300 }, () => bus.client.say({ text: "on its way" }));
    await bus.near.flush(); // NATS has them; the service may not
    await server[Symbol.asyncDispose]();
    for (const result of await Promise.allSettled(calls)) {
      if (result.status === "rejected") expect(result.reason).toMatchObject({ reason: "NO_RESPONDER" });
      else expect(result.value.text).toBe("on its way");
    }
  });
});

import { connect as connectTcp } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import {
  connect,
  createInbox,
  type MsgHdrs,
  type NatsConnection,
  headers as newHeaders,
} from "@nats-io/transport-node";
import { afterAll, beforeAll, expect, it } from "vitest";
import { silentLog } from "../../services/shared/log.ts";
import { natsClient } from "../../services/shared/rpc/nats-client.ts";
import { serveNats } from "../../services/shared/rpc/nats-server.ts";
import { service } from "../../services/shared/rpc/service.ts";
import type { Caller, Client } from "../../services/shared/rpc/types.ts";
import { eventually, refusalOf } from "../support/clients.ts";
import { type RunningNats, startNats } from "../support/nats.ts";
import { CountRequestSchema, EchoService, SayRequestSchema } from "./proto/interlock/test/v1/echo_pb.ts";
import { collect, ECHO, type EchoHandlers, texts, untilAborted } from "./rpc-echo.ts";

/**
 * Several processes on one bus: replicas that share calls, connections that their owner closes, and others who speak
 * the wire by hand. The wire is written out here, not asked of the code under test, which could change both at once.
 */

const CALLER: Caller = { kind: "service", name: "broker" };
const SAY = "interlock.rpc.EchoService.Say";
const COUNT = "interlock.rpc.EchoService.Count";
const UP = "interlock.rpc-up.EchoService.c1";
/** What a server sends before it is granted more. */
const WINDOW = 64;

let nats: RunningNats;
const all = new AsyncDisposableStack();
beforeAll(async () => {
  nats = all.use(await startNats({ jetstream: false }));
});
afterAll(() => all.disposeAsync());

type Bus = AsyncDisposable & {
  readonly near: NatsConnection;
  readonly client: Client<typeof EchoService>;
  /** Serves an echo of which some methods are written for the test, from a connection of its own. */
  serve(handlers: Partial<EchoHandlers>): Promise<{ readonly far: NatsConnection; readonly server: AsyncDisposable }>;
};

async function openBus(): Promise<Bus> {
  const stack = new AsyncDisposableStack();
  const open = async (): Promise<NatsConnection> => {
    const connection = await connect({ servers: nats.url });
    stack.defer(() => connection.close());
    return connection;
  };
  const near = await open();
  return {
    near,
    client: natsClient(EchoService, near, { caller: CALLER }),
    serve: async (handlers) => {
      const far = await open();
      const server = serveNats(far, [service(EchoService, { ...ECHO, ...handlers })], {
        queue: "echo",
        log: silentLog,
      });
      stack.use(server);
      await far.flush();
      return { far, server };
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

it("a call is one replica's, and so is its cancellation", async () => {
  await using bus = await openBus();
  const begun = [0, 0];
  let ended = 0;
  for (const index of [0, 1]) {
    await bus.serve({
      say: (_, { signal }) => {
        begun[index] = (begun[index] ?? 0) + 1;
        return untilAborted(signal, () => ended++);
      },
    });
  }
  const stops = [new AbortController(), new AbortController()];
  const calls = stops.map(({ signal }) => Array.from({ length: 20 }, () => refusalOf(bus.client.say({}, { signal }))));
  await eventually(
    async () => begun.reduce((sum, each) => sum + each),
    (sum) => sum === 40,
  );
  expect(Math.min(...begun)).toBeGreaterThan(0);
  for (const [index, stop] of stops.entries()) {
    stop.abort();
    for (const { code } of await Promise.all(calls[index] ?? [])) expect(code).toBe("CANCELLED");
    await eventually(
      async () => ended,
      (count) => count >= 20 * (index + 1),
    );
    expect(ended).toBe(20 * (index + 1));
  }
});

it("no call is lost when one of two replicas stops amid them", async () => {
  await using bus = await openBus();
  const { server } = await bus.serve({});
  await bus.serve({});
  const calls = Array.from({ length: 300 }, (_, n) => bus.client.say({ text: String(n) }));
  const [answers] = await Promise.all([Promise.all(calls), server[Symbol.asyncDispose]()]);
  expect(answers.map(({ text }) => text)).toEqual(calls.map((_, n) => String(n)));
});

it("a caller whose connection is closed waits for nothing", async () => {
  await using bus = await openBus();
  const entered = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  await bus.serve({
    say: async () => {
      entered.resolve();
      await released.promise;
      return {};
    },
  });
  const waiting = refusalOf(bus.client.say({}));
  await entered.promise;
  await bus.near.close();
  const lost = { code: "UNAVAILABLE", reason: "CONNECTION_LOST" };
  expect(await waiting).toMatchObject(lost);
  expect(await refusalOf(bus.client.say({}))).toMatchObject(lost);
  expect(await refusalOf(collect(bus.client.chat(texts("one"))))).toMatchObject(lost);
  released.resolve();
});

it("a service whose connection is closed finishes what it does, and stops", async () => {
  await using bus = await openBus();
  const entered = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  const { far, server } = await bus.serve({
    say: async () => {
      entered.resolve();
      await released.promise;
      return { text: "to nobody" };
    },
  });
  const stop = new AbortController();
  const waiting = refusalOf(bus.client.say({}, { signal: stop.signal }));
  await entered.promise;
  await far.close();
  released.resolve();
  await server[Symbol.asyncDispose]();
  stop.abort();
  expect((await waiting).code).toBe("CANCELLED");
});

it("a stream brings no more than was granted, and as much as that, whatever is asked for", async () => {
  await using bus = await openBus();
  let made = 0;
  await bus.serve({
    async *count() {
      while (made < 100 * WINDOW) yield { number: ++made };
    },
  });
  let heard = 0;
  const inbox = createInbox();
  bus.near.subscribe(inbox, { callback: () => void heard++ });
  const grant = (count: number) => bus.near.publish(UP, undefined, { headers: headersOf({ frame: "credit", count }) });
  const request = toBinary(CountRequestSchema, create(CountRequestSchema, { to: 1 }));
  bus.near.publish(COUNT, request, { reply: inbox, headers: requestHeaders("c1") });
  await settles(bus, () => heard, WINDOW);
  grant(10);
  await settles(bus, () => heard, WINDOW + 10);
  grant(Number.MAX_SAFE_INTEGER); // taken for two windows
  await settles(bus, () => heard, WINDOW + 10 + 2 * WINDOW);
  expect(made - heard).toBeLessThanOrEqual(1);
  bus.near.publish(UP, undefined, { headers: headersOf({ frame: "cancel", count: 0 }) });
});

it("a request answered to the service itself, or to no subject, goes round no second time", async () => {
  await using bus = await openBus();
  const said: string[] = [];
  await bus.serve({
    say: async ({ text }) => {
      said.push(text);
      return { text };
    },
  });
  const sent = [SAY, UP, "_INBOX.>", "*", "a..b"];
  for (const [n, reply] of sent.entries()) await publishRaw(SAY, reply, requestHeaders(`c${n}`), sayBytes(reply));
  bus.near.publish(SAY, sayBytes("nobody"), { headers: requestHeaders("c9") });
  expect((await bus.client.say({ text: "last" })).text).toBe("last");
  // The wire's order does not bind two connections; what was sent before `last` was flushed to NATS before it.
  expect(said.filter((text) => text !== "last").every((text) => sent.includes(text))).toBe(true);
  expect(new Set(said).size).toBe(said.length);
  expect(said).toContain(SAY);
});

function requestHeaders(call: string): MsgHdrs {
  const made = newHeaders();
  made.set("interlock-call", call);
  made.set("interlock-caller", JSON.stringify(CALLER));
  return made;
}

function headersOf({ frame, count }: { readonly frame: string; readonly count: number }): MsgHdrs {
  const made = newHeaders();
  made.set("interlock-frame", frame);
  made.set("interlock-number", String(count));
  return made;
}

function sayBytes(text: string): Uint8Array {
  return toBinary(SayRequestSchema, create(SayRequestSchema, { text }));
}

/** It comes to this, and stays there while others are served. */
async function settles(bus: Bus, ask: () => number, at: number): Promise<void> {
  await eventually(
    async () => ask(),
    (seen) => seen >= at,
  );
  for (let n = 0; n < 10; n++) await bus.client.say({});
  expect(ask()).toBe(at);
}

/** Past the client library, which would not send such a reply. */
async function publishRaw(subject: string, reply: string, made: MsgHdrs, data: Uint8Array): Promise<void> {
  const lines = made.keys().map((key) => `${key}: ${made.get(key)}\r\n`);
  const block = `NATS/1.0\r\n${lines.join("")}\r\n`;
  const socket = connectTcp(nats.port, "127.0.0.1");
  socket.write('CONNECT {"headers":true,"verbose":false}\r\n');
  socket.write(`HPUB ${subject} ${reply} ${block.length} ${block.length + data.length}\r\n${block}`);
  socket.write(data);
  socket.write("\r\nPING\r\n");
  for await (const chunk of socket) if (/PONG|-ERR/.test(String(chunk))) break;
  socket.destroy();
}

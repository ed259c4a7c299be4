import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EchoService } from "../../../test/contract/proto/interlock/test/v1/echo_pb.ts";
import { collect, ECHO, type EchoHandlers, texts, untilAborted } from "../../../test/contract/rpc-echo.ts";
import { refusalOf } from "../../../test/support/clients.ts";
import { startNats } from "../../../test/support/nats.ts";
import { silentLog } from "../log.ts";
import { RpcError } from "./errors.ts";
import { forward } from "./forward.ts";
import { openGrpcChannel } from "./grpc-client.ts";
import { startGrpcServer } from "./grpc-server.ts";
import { natsClient } from "./nats-client.ts";
import { serveNats } from "./nats-server.ts";
import { service } from "./service.ts";
import type { Caller, Client, HandlerContext } from "./types.ts";

/** The whole way of a call to a service in another process: gRPC edge, forward, NATS, service. */

const AGENT: Caller = { kind: "agent", tenant: "demo", agent: "demo-agent" };
const TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const shared = new AsyncDisposableStack();
let client: Client<typeof EchoService>;
let far: NatsConnection;

beforeAll(async () => {
  const nats = shared.use(await startNats({ jetstream: false }));
  const open = async (): Promise<NatsConnection> => {
    const connection = await connect({ servers: nats.url });
    shared.defer(() => connection.close());
    return connection;
  };
  far = await open();
  const edge = { caller: { kind: "service", name: "edge" } } as const;
  const server = shared.use(
    await startGrpcServer({
      listen: "127.0.0.1:0",
      services: [forward(EchoService, natsClient(EchoService, await open(), edge))],
      authenticate: () => AGENT,
      log: silentLog,
      maxMessageBytes: 1 << 20,
    }),
  );
  client = shared.use(openGrpcChannel({ address: server.address })).client(EchoService);
});
afterAll(() => shared.disposeAsync());

async function serve(handlers: Partial<EchoHandlers>): Promise<AsyncDisposable> {
  const server = serveNats(far, [service(EchoService, { ...ECHO, ...handlers })], { queue: "echo", log: silentLog });
  await far.flush();
  return server;
}

/** Each kind of method, with a handler that tells what it was told, and then waits for what its signal says. */
type Told = { readonly context: Promise<HandlerContext>; readonly ended: Promise<unknown> };
const KINDS = ["unary", "server stream", "bidi"] as const;

function waiting(): { readonly handlers: Partial<EchoHandlers>; readonly told: Told } {
  const context = Promise.withResolvers<HandlerContext>();
  const ended = Promise.withResolvers<unknown>();
  const wait = async (of: HandlerContext): Promise<never> => {
    context.resolve(of);
    return await untilAborted(of.signal, ended.resolve);
  };
  const handlers: Partial<EchoHandlers> = {
    say: (_, of) => wait(of),
    async *count(_, of) {
      yield { number: 1 };
      await wait(of);
    },
    async *chat(_, of) {
      yield { text: "one" };
      await wait(of);
    },
  };
  return { handlers, told: { context: context.promise, ended: ended.promise } };
}

function begin(kind: (typeof KINDS)[number], options: Parameters<typeof client.say>[1]): Promise<unknown> {
  switch (kind) {
    case "unary":
      return client.say({}, options);
    case "server stream":
      return collect(client.count({ to: 2 }, options));
    case "bidi":
      return collect(client.chat(texts("one"), options));
  }
}

describe("a call that is handed on", () => {
  it("is answered, whatever its kind", async () => {
    await using _ = await serve({});
    expect((await client.say({ text: "grüß Gott" })).text).toBe("grüß Gott");
    const numbers = (await collect(client.count({ to: 300 }))).map(({ number }) => number);
    expect(numbers).toEqual(Array.from({ length: 300 }, (_, index) => index + 1));
    const many = Array.from({ length: 300 }, (_, index) => `text ${index}`);
    expect((await collect(client.chat(texts(...many)))).map(({ text }) => text)).toEqual(many);
  });

  it.each(KINDS)("keeps its caller, deadline and trace, and is cancelled with it: %s", async (kind) => {
    const { handlers, told } = waiting();
    await using _ = await serve(handlers);
    const stop = new AbortController();
    const deadlineMs = Date.now() + 600_000;
    const refusal = refusalOf(begin(kind, { signal: stop.signal, deadlineMs, traceParent: TRACE }));
    const context = await told.context;
    expect(context.caller).toEqual(AGENT);
    expect(context.traceParent).toBe(TRACE);
    expect(Math.abs((context.deadlineMs ?? 0) - deadlineMs)).toBeLessThan(60_000);
    stop.abort();
    expect(await refusal).toMatchObject({ code: "CANCELLED" });
    expect(await told.ended).toMatchObject({ name: "AbortError" });
  });

  it.each(KINDS)("ends at its deadline on both sides: %s", async (kind) => {
    const { handlers, told } = waiting();
    await using _ = await serve(handlers);
    const refusal = refusalOf(begin(kind, { deadlineMs: Date.now() + 300 }));
    expect(await refusal).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    // Whichever of the service's own clock and the edge's cancellation comes first.
    expect(await told.ended).toMatchObject({ name: expect.stringMatching(/^(Timeout|Abort)Error$/) });
  });

  it.each(KINDS)("is refused with all that was said: %s", async (kind) => {
    const said = {
      code: "FAILED_PRECONDITION",
      reason: "ECHO_REFUSED",
      message: 'Refused – say "please".',
      field: "text",
      metadata: { stage: "reserve" },
      retryAfterMs: 1_250,
    } as const;
    const refuse = (): never => {
      throw new RpcError(said);
    };
    await using _ = await serve({
      say: async () => refuse(),
      async *count() {
        yield { number: 1 };
        refuse();
      },
      async *chat() {
        yield { text: "one" };
        refuse();
      },
    });
    expect(await refusalOf(begin(kind, {}))).toMatchObject(said);
  });

  it.each(KINDS)("is told at once that nobody serves it: %s", async (kind) => {
    expect(await refusalOf(begin(kind, {}))).toMatchObject({ code: "UNAVAILABLE", reason: "NO_RESPONDER" });
  });

  it("ends the service's stream when its reader leaves", async () => {
    const { handlers, told } = waiting();
    await using _ = await serve(handlers);
    for await (const { number } of client.count({ to: 2 })) {
      expect(number).toBe(1);
      await told.context;
      break;
    }
    expect(await told.ended).toMatchObject({ name: "AbortError" });
  });

  it("does not let a service run ahead of a slow reader at the other end", async () => {
    let made = 0;
    await using _ = await serve({
      async *count({ to }) {
        for (; made < to; made += 1) yield { number: made, padding: new Uint8Array(16_384) };
      },
    });
    let read = 0;
    let mostAhead = 0;
    for await (const { number } of client.count({ to: 2_000 })) {
      expect(number).toBe(read);
      read += 1;
      mostAhead = Math.max(mostAhead, made - read);
    }
    expect(read).toBe(2_000);
    expect(mostAhead).toBeLessThan(400); // the window of each of the two transports
  });
});

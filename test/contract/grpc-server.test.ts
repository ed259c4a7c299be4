import { once } from "node:events";
import { type AddressInfo, createServer, Socket } from "node:net";
import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import { type FileDescriptorProto, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { authenticator } from "../../services/shared/identity.ts";
import { type Log, silentLog } from "../../services/shared/log.ts";
import { RpcError } from "../../services/shared/rpc/errors.ts";
import { openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import { type GrpcServer, startGrpcServer } from "../../services/shared/rpc/grpc-server.ts";
import { service } from "../../services/shared/rpc/service.ts";
import type { Client as RpcClient } from "../../services/shared/rpc/types.ts";
import { hashKey } from "../../services/shared/state-dir.ts";
import { refusalOf } from "../support/clients.ts";
import { EchoService } from "./proto/interlock/test/v1/echo_pb.ts";
import { ECHO, type EchoHandlers } from "./rpc-echo.ts";

/** What the gRPC edge does beyond carrying calls; see rpc.test.ts for that. */

const KEYS = { agent: "ilk_agent", reviewer: "ilk_reviewer", operator: "ilk_operator", nobody: "ilk_nobody" };
const person = { kind: "person" as const, tenant: "demo", groups: [] };
const authenticate = authenticator([
  { kind: "agent", tenant: "demo", agent: "demo-agent", sha256: hashKey(KEYS.agent) },
  { ...person, name: "alice", roles: ["reviewer"], sha256: hashKey(KEYS.reviewer) },
  { ...person, name: "olga", roles: ["operator"], sha256: hashKey(KEYS.operator) },
  { ...person, name: "nils", roles: [], sha256: hashKey(KEYS.nobody) },
]);

function serve(handlers: Partial<EchoHandlers> = {}, log: Log = silentLog): Promise<GrpcServer> {
  const services = [service(EchoService, { ...ECHO, ...handlers })];
  return startGrpcServer({ listen: "127.0.0.1:0", services, authenticate, log, maxMessageBytes: 1 << 20 });
}

type Echo = RpcClient<typeof EchoService>;

async function as<T>(server: GrpcServer, apiKey: string | undefined, use: (echo: Echo) => Promise<T>): Promise<T> {
  const key = apiKey === undefined ? {} : { apiKey };
  await using channel = openGrpcChannel({ address: server.address, ...key });
  return await use(channel.client(EchoService));
}

describe("who may call what", () => {
  it.each<[string, string, (echo: Echo) => Promise<unknown>]>([
    ["an agent", KEYS.agent, (echo) => echo.say({ text: "" })],
    ["a reviewer", KEYS.reviewer, (echo) => echo.review({})],
    ["an operator", KEYS.operator, (echo) => echo.review({})],
  ])("lets %s in where the contract names them", async (_, key, call) => {
    await using server = await serve();
    await as(server, key, call);
  });

  it.each<[string, string, (echo: Echo) => Promise<unknown>, string]>([
    [
      "an agent",
      KEYS.agent,
      (echo) => echo.review({}),
      "is for reviewers and operators; you call as agent demo/demo-agent",
    ],
    [
      "a reviewer",
      KEYS.reviewer,
      (echo) => echo.say({ text: "" }),
      "is for agents; you call as person demo/alice (reviewer)",
    ],
    ["a person without a role", KEYS.nobody, (echo) => echo.review({}), "person demo/nils (no role)"],
    ["an operator", KEYS.operator, (echo) => Array.fromAsync(echo.count({ to: 1 })), "is for agents"],
    ["an operator", KEYS.operator, (echo) => Array.fromAsync(echo.chat(none())), "is for agents"],
  ])("refuses %s where it does not", async (_, key, call, words) => {
    await using server = await serve();
    const refusal = await as(server, key, (echo) => refusalOf(call(echo)));
    expect(refusal).toMatchObject({ code: "PERMISSION_DENIED", reason: "ACCESS_DENIED" });
    expect(refusal.message).toContain(words);
  });

  it.each([
    ["missing", undefined, "KEY_MISSING"],
    ["unknown", "ilk_wrong", "KEY_UNKNOWN"],
  ])("refuses a key that is %s", async (_, key, reason) => {
    await using server = await serve();
    const refusals = await as(server, key, (echo) =>
      Promise.all([refusalOf(echo.say({ text: "" })), refusalOf(Array.fromAsync(echo.chat(none())))]),
    );
    for (const refusal of refusals) expect(refusal).toMatchObject({ code: "UNAUTHENTICATED", reason });
  });

  it("does not serve what names nobody", async () => {
    await using server = await serve();
    const refusal = await as(server, KEYS.operator, (echo) => refusalOf(echo.inner({})));
    expect(refusal.code).toBe("UNIMPLEMENTED");
  });
});

describe("bytes that are no request", () => {
  const malformed = Buffer.from([0x0a, 0x7f, 0x01]);

  it("are refused as the caller's fault", async () => {
    await using server = await serve();
    const refusal = await raw(server, "/interlock.test.v1.EchoService/Say", malformed, KEYS.agent).catch(
      (error) => error,
    );
    expect(refusal).toMatchObject({ code: 3, details: expect.stringContaining("no interlock.test.v1.SayRequest") });
  });

  it("are not looked at before the key", async () => {
    await using server = await serve();
    const refusal = await raw(server, "/interlock.test.v1.EchoService/Say", malformed, "ilk_wrong").catch(
      (error) => error,
    );
    expect(refusal).toMatchObject({ code: 16 });
  });
});

describe("errors that do not fit into trailers", () => {
  it.each([
    ["a long message", { message: "long ".repeat(100_000) }],
    ["a message of long characters", { message: "長".repeat(100_000) }],
    ["half a surrogate pair", { message: "half \ud800 pair" }],
    ["much metadata", { message: "much", metadata: { rule: "r".repeat(100_000) } }],
  ])("are cut: %s", async (_, said) => {
    const refused = new RpcError({ code: "ABORTED", reason: "TOO_LONG", ...said });
    await using server = await serve({ say: () => Promise.reject(refused) });
    const refusal = await as(server, KEYS.agent, (echo) => refusalOf(echo.say({ text: "" })));
    expect(refusal).toMatchObject({ code: "ABORTED", reason: "TOO_LONG" });
    expect(refusal.message.slice(0, 4)).toBe(said.message.slice(0, 4));
  });
});

describe("health", () => {
  const SERVING = [0x08, 0x01];
  const check = (server: GrpcServer, name: string) =>
    raw(server, "/grpc.health.v1.Health/Check", Buffer.from(new BinaryWriter().tag(1, 2).string(name).finish()));

  it.each(["", "interlock.test.v1.EchoService"])("is serving: '%s'", async (name) => {
    await using server = await serve();
    expect([...(await check(server, name))]).toEqual(SERVING);
  });

  it("does not know what is not served", async () => {
    await using server = await serve();
    await expect(check(server, "interlock.test.v1.Other")).rejects.toMatchObject({ code: 5 });
  });
});

describe("reflection", () => {
  /** Field numbers of ServerReflectionRequest. */
  const FILE_BY_FILENAME = 3;
  const FILE_CONTAINING_SYMBOL = 4;
  const LIST_SERVICES = 7;

  describe.each(["v1", "v1alpha"])("%s", (version) => {
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
    const ask = async (server: GrpcServer, field: number, text: string): Promise<Uint8Array> => {
      const client = new Client(server.address, credentials.createInsecure());
      const stream = client.makeBidiStreamRequest(path, same, same);
      stream.end(Buffer.from(new BinaryWriter().tag(field, 2).string(text).finish()));
      const [answer] = (await once(stream, "data")) as [Buffer];
      await once(stream.resume(), "end");
      client.close();
      return answer;
    };

    it("lists what is served", async () => {
      await using server = await serve();
      const answer = await ask(server, LIST_SERVICES, "*");
      const names = fieldsOf(answer, 6)
        .flatMap((list) => fieldsOf(list, 1))
        .flatMap((one) => fieldsOf(one, 1));
      expect(names.map((name) => Buffer.from(name).toString())).toEqual(["interlock.test.v1.EchoService"]);
    });

    it("gives the contract, whole", async () => {
      await using server = await serve();
      const files = new Map<string, FileDescriptorProto>();
      const learn = async (field: number, text: string) => {
        for (const list of fieldsOf(await ask(server, field, text), 4)) {
          for (const bytes of fieldsOf(list, 1)) {
            const file = fromBinary(FileDescriptorProtoSchema, bytes);
            files.set(file.name, file);
          }
        }
      };
      await learn(FILE_CONTAINING_SYMBOL, "interlock.test.v1.EchoService");
      // As grpcurl does: what a file imports and did not come with it is asked for by name.
      for (const { dependency } of files.values()) {
        for (const name of dependency) if (!files.has(name)) await learn(FILE_BY_FILENAME, name);
      }
      const own = files.get("interlock/test/v1/echo.proto");
      if (own === undefined) throw new Error("the service's own file did not come");
      const registry = createFileRegistry(own, (name) => files.get(name));
      const methods = registry.getService("interlock.test.v1.EchoService")?.methods ?? [];
      expect(methods.map((method) => [method.name, method.methodKind])).toEqual(
        EchoService.methods.map((method) => [method.name, method.methodKind]),
      );
    });
  });
});

describe("starting and stopping", () => {
  it("names a port that is in use, and says how to mend it", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const listen = `127.0.0.1:${(other.address() as AddressInfo).port}`;
    const start = startGrpcServer({ listen, services: [], authenticate, log: silentLog, maxMessageBytes: 1024 });
    await expect(start).rejects.toThrow(`Cannot listen on ${listen}: the port is in use. Stop what listens there`);
    other.close();
  });

  it("names a server that is not there", async () => {
    await using server = await serve();
    const { address } = server;
    await server[Symbol.asyncDispose]();
    const refusal = await as(server, KEYS.agent, (echo) => refusalOf(echo.say({ text: "" })));
    expect(refusal).toMatchObject({ code: "UNAVAILABLE", reason: "NOT_CONNECTED" });
    expect(refusal.message).toContain(`${address} does not answer (connect ECONNREFUSED ${address})`);
  });

  it("lets a call finish, and tells a stream to come again", async () => {
    const entered = Promise.withResolvers<void>();
    const finish = Promise.withResolvers<void>();
    await using server = await serve({
      async say() {
        entered.resolve();
        await finish.promise;
        return { text: "finished" };
      },
    });
    await as(server, KEYS.agent, async (echo) => {
      const answer = echo.say({ text: "" });
      const chat = echo.chat(never())[Symbol.asyncIterator]();
      const refusal = refusalOf(chat.next());
      await entered.promise;
      const stopped = server[Symbol.asyncDispose]();
      expect(await refusal).toMatchObject({ code: "UNAVAILABLE", reason: "SERVER_STOPPING", retryAfterMs: 1000 });
      finish.resolve();
      expect((await answer).text).toBe("finished");
      await stopped;
    });
  });

  it("cancels the calls of a connection that is lost", async () => {
    const aborted = Promise.withResolvers<unknown>();
    const entered = Promise.withResolvers<void>();
    await using server = await serve({
      say: (_, { signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            aborted.resolve(signal.reason);
            reject(signal.reason);
          });
          entered.resolve();
        }),
    });
    await using wire = await breakableWire(server.address);
    await using channel = openGrpcChannel({ address: wire.address, apiKey: KEYS.agent });
    const refusal = refusalOf(channel.client(EchoService).say({ text: "" }));
    await entered.promise;
    wire.cut();
    expect(await aborted.promise).toMatchObject({ name: "AbortError" });
    expect((await refusal).code).toBe("UNAVAILABLE");
  });
});

describe("the log", () => {
  async function linesOf(level: string, handlers: Partial<EchoHandlers>): Promise<unknown[]> {
    const lines: string[] = [];
    await using server = await serve(handlers, pino({ level }, { write: (line: string) => void lines.push(line) }));
    await as(server, KEYS.agent, (echo) => echo.say({ text: "" }).catch(() => {}));
    return lines.map((line) => JSON.parse(line) as unknown);
  }

  it("has the cause of a bug", async () => {
    const lines = await linesOf("info", { say: () => Promise.reject(new Error("the cause")) });
    const line = { method: "interlock.test.v1.EchoService/Say", code: "INTERNAL", caller: "agent demo/demo-agent" };
    expect(lines).toMatchObject([{ ...line, ms: expect.any(Number), err: { message: "the cause" } }]);
  });

  it("has one line for each call, where asked for", async () => {
    expect(await linesOf("debug", {})).toMatchObject([{ method: "interlock.test.v1.EchoService/Say", code: "OK" }]);
    expect(await linesOf("info", {})).toEqual([]);
  });
});

function same(bytes: Buffer): Buffer {
  return bytes;
}

async function* none(): AsyncIterable<{ text: string }> {}

async function* never(): AsyncIterable<{ text: string }> {
  await new Promise(() => {});
}

function raw(server: GrpcServer, path: string, bytes: Buffer, apiKey?: string): Promise<Buffer> {
  const client = new Client(server.address, credentials.createInsecure());
  const metadata = new Metadata();
  if (apiKey !== undefined) metadata.set("authorization", `Bearer ${apiKey}`);
  return new Promise<Buffer>((resolve, reject) => {
    client.makeUnaryRequest(path, same, same, bytes, metadata, (error: ServiceError | null, answer?: Buffer) => {
      if (error === null && answer !== undefined) resolve(answer);
      else reject(error);
    });
  }).finally(() => client.close());
}

/** The length-delimited fields of this number in a message. */
function fieldsOf(message: Uint8Array, wanted: number): Uint8Array[] {
  const reader = new BinaryReader(message);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === wanted) found.push(reader.bytes());
    else reader.skip(wireType, field);
  }
  return found;
}

/** Passes bytes on to an address until it is cut. */
async function breakableWire(address: string): Promise<AsyncDisposable & { address: string; cut(): void }> {
  const [host, port] = address.split(":");
  const sockets: Socket[] = [];
  const wire = createServer((near) => {
    const far = new Socket().connect(Number(port), host ?? "");
    sockets.push(near, far);
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) socket.on("error", () => {});
  });
  wire.listen(0, "127.0.0.1");
  await once(wire, "listening");
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    address: `127.0.0.1:${(wire.address() as AddressInfo).port}`,
    cut,
    [Symbol.asyncDispose]: async () => {
      cut();
      wire.close();
      await once(wire, "close");
    },
  };
}

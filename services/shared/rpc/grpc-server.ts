import type { DescMethod } from "@bufbuild/protobuf";
import {
  Server,
  ServerCredentials,
  type ServiceDefinition,
  setLogger,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import type { Headers } from "../identity.ts";
import type { Log } from "../log.ts";
import { accessOf } from "./access.ts";
import type { BidiHandler, ServerStreamHandler, UnaryHandler } from "./client.ts";
import { type Edge, type Served, serveBidi, serveServerStream, serveUnary } from "./grpc-serve.ts";
import { addHealth, addReflection, type Health } from "./grpc-standard.ts";
import { OpenCalls } from "./open-calls.ts";
import { methodName, type Service } from "./service.ts";
import type { Caller } from "./types.ts";

export type GrpcServerOptions = {
  /** `host:port`; port 0 takes a free one. */
  readonly listen: string;
  readonly services: readonly Service[];
  /** @throws RpcError UNAUTHENTICATED */
  readonly authenticate: (headers: Headers) => Caller;
  readonly log: Log;
  readonly maxMessageBytes: number;
  /** PEM. With `clientCa`, clients must present a certificate signed by it. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer; readonly clientCa?: Buffer };
};

export type GrpcServer = AsyncDisposable & {
  /** `host:port`, with the port that was taken. */
  readonly address: string;
};

/** When it stops, unary calls may finish; streams, which need not end by themselves, are told to come again. */
const STREAM_GRACE_MS = 500;
/** Then the connections are cut, whatever is on them. */
const STOP_WITHIN_MS = 5_000;

/**
 * Serves at the edge the methods whose contract names callers, each to those callers only.
 * @throws Error naming the address when it cannot be listened on.
 */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { listen, services, authenticate, log, maxMessageBytes, tls } = options;
  // grpc-js writes to stderr what it also reports; its words belong in the log.
  setLogger({ error: (...words: unknown[]) => log.debug({ words: words.join(" ") }, "grpc-js") });
  const server = new Server({
    "grpc.max_receive_message_length": maxMessageBytes,
    // A peer that vanished without a word is noticed, and its calls are cancelled.
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
  });
  const edge: Edge = { authenticate, log, maxMessageBytes, calls: new OpenCalls() };
  const served = services.filter((service) => addService(server, service, edge)).map(({ desc }) => desc);
  addReflection(server, served);
  const health = addHealth(server, served);
  const port = await bind(server, listen, credentialsOf(tls));
  return {
    address: `${listen.slice(0, listen.lastIndexOf(":"))}:${port}`,
    [Symbol.asyncDispose]: () => stop(server, health, edge.calls),
  };
}

/** False when no method of the service is for the edge. */
function addService(server: Server, service: Service, edge: Edge): boolean {
  const definition: Record<string, ServiceDefinition[string]> = {};
  const handlers: UntypedServiceImplementation = {};
  for (const method of service.desc.methods) {
    const access = accessOf(method);
    if (access.length === 0) continue;
    const name = methodName(method);
    definition[method.localName] = {
      path: `/${name}`,
      requestStream: method.methodKind === "bidi_streaming",
      responseStream: method.methodKind !== "unary",
      // Bytes pass through grpc-js: a request is read only after its caller is known.
      requestSerialize: same,
      requestDeserialize: same,
      responseSerialize: same,
      responseDeserialize: same,
    };
    handlers[method.localName] = handlerOf({ edge, method, name, access }, service.handlers[method.localName]);
  }
  if (Object.keys(handlers).length === 0) return false;
  server.addService(definition, handlers);
  return true;
}

function handlerOf(served: Served, handler: unknown): UntypedServiceImplementation[string] {
  const { method }: { method: DescMethod } = served;
  switch (method.methodKind) {
    case "unary":
      return serveUnary(served, handler as UnaryHandler);
    case "server_streaming":
      return serveServerStream(served, handler as ServerStreamHandler);
    case "bidi_streaming":
      return serveBidi(served, handler as BidiHandler);
    case "client_streaming":
      throw new Error(`${served.name}: client streaming is not supported`);
  }
}

function same(bytes: Buffer): Buffer {
  return bytes;
}

function credentialsOf(tls: GrpcServerOptions["tls"]): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure();
  const { cert, key, clientCa } = tls;
  const pair = { cert_chain: cert, private_key: key };
  return ServerCredentials.createSsl(clientCa ?? null, [pair], clientCa !== undefined);
}

function bind(server: Server, listen: string, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(listen, credentials, (error, port) => {
      if (error === null) return resolve(port);
      server.forceShutdown();
      const why = error.message.includes("EADDRINUSE") ? "the port is in use" : error.message;
      const mend = "Stop what listens there, or choose another address with --listen or `listen:`.";
      reject(new Error(`Cannot listen on ${listen}: ${why}. ${mend}`, { cause: error }));
    });
  });
}

async function stop(server: Server, health: Health, calls: OpenCalls): Promise<void> {
  health.stop();
  const streams = setTimeout(() => calls.endStreams(), STREAM_GRACE_MS);
  const { promise: late, resolve: giveUp } = Promise.withResolvers<void>();
  const cut = setTimeout(() => {
    server.forceShutdown();
    giveUp();
  }, STOP_WITHIN_MS);
  try {
    // The connections close when their calls have been answered; a call's work may end a little after.
    const closed = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
    await Promise.race([Promise.all([closed, calls.idle()]), late]);
  } finally {
    clearTimeout(streams);
    clearTimeout(cut);
  }
}

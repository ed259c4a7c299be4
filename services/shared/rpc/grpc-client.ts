import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { Channel, type ChannelOptions, credentials, Metadata } from "@grpc/grpc-js";
import { MAX_TIMER_MS } from "./call-scope.ts";
import { makeClient } from "./client.ts";
import { callUnary, type Target } from "./grpc-call.ts";
import { GrpcStream } from "./grpc-stream.ts";
import { one } from "./iterators.ts";
import { methodName } from "./service.ts";
import type { Client } from "./types.ts";

export type GrpcChannelOptions = {
  /** `host:port` */
  readonly address: string;
  readonly apiKey?: string;
  /** PEM. `ca`: whom to trust, the system's roots when absent; `cert` and `key`: who we are. */
  readonly tls?: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
};

/** One connection to an Interlock, for any of its services. Connects at the first call, and again after a loss. */
export type GrpcChannel = AsyncDisposable & {
  client<S extends DescService>(desc: S): Client<S>;
};

const OPTIONS: ChannelOptions = {
  // A connection ends with its channel, rather than staying in a pool of the process.
  "grpc.use_local_subchannel_pool": 1,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 5_000,
  // A peer that vanished without a word is noticed while calls wait for it.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // Requests kept in case a call must be sent again; the default of 1 MiB lets a stream run that far ahead.
  "grpc.per_rpc_retry_buffer_size": 256 << 10,
  // How large a message may be is the server's to say.
  "grpc.max_receive_message_length": -1,
};

export function openGrpcChannel(options: GrpcChannelOptions): GrpcChannel {
  const { address, apiKey, tls } = options;
  const secure =
    tls === undefined
      ? credentials.createInsecure()
      : credentials.createSsl(tls.ca ?? null, tls.key ?? null, tls.cert ?? null);
  const channel = new Channel(address, secure, OPTIONS);
  const targetOf = (method: DescMethod): Target => {
    const path = `/${methodName(method)}`;
    return {
      address,
      method,
      open: ({ deadlineMs, traceParent }) => ({
        call: channel.createCall(path, deadlineOf(deadlineMs), null, null, null),
        metadata: metadataOf(apiKey, traceParent),
      }),
    };
  };
  return {
    client: (desc) =>
      makeClient(desc, {
        unary: (method) => {
          const target = targetOf(method);
          return (request, call = {}) => callUnary(target, request, call);
        },
        serverStream: (method) => {
          const target = targetOf(method);
          return (request, call = {}) => new GrpcStream(target, one(request), call);
        },
        bidi: (method) => {
          const target = targetOf(method);
          return (requests, call = {}) => new GrpcStream(target, requests, call);
        },
      }),
    [Symbol.asyncDispose]: async () => channel.close(),
  };
}

function deadlineOf(deadlineMs: number | undefined): number {
  return deadlineMs === undefined || deadlineMs - Date.now() > MAX_TIMER_MS ? Infinity : deadlineMs;
}

function metadataOf(apiKey: string | undefined, traceParent: string | undefined): Metadata {
  const metadata = new Metadata();
  if (apiKey !== undefined) metadata.set("authorization", `Bearer ${apiKey}`);
  if (traceParent !== undefined) metadata.set("traceparent", traceParent);
  return metadata;
}

import { connect, type NatsConnection } from "@nats-io/transport-node";
import { silentLog } from "../../services/shared/log.ts";
import { openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import { startGrpcServer } from "../../services/shared/rpc/grpc-server.ts";
import { localClient } from "../../services/shared/rpc/local.ts";
import { natsClient } from "../../services/shared/rpc/nats-client.ts";
import { serveNats } from "../../services/shared/rpc/nats-server.ts";
import { startNats } from "../support/nats.ts";
import { EchoService } from "./proto/interlock/test/v1/echo_pb.ts";
import type { Transport } from "./rpc-echo.ts";
import { describeTransport } from "./rpc-suite.ts";

const MAX_MESSAGE_BYTES = 1 << 20;

/** Every transport there is. A new one is an entry here, and nothing else. */
const TRANSPORTS: readonly Transport[] = [
  {
    name: "local",
    maxMessageBytes: undefined,
    connect: async (echo, caller) => ({
      client: localClient<typeof EchoService>(echo, { caller }),
      [Symbol.asyncDispose]: async () => {},
    }),
  },
  {
    name: "gRPC",
    maxMessageBytes: MAX_MESSAGE_BYTES,
    connect: async (echo, caller) => {
      await using stack = new AsyncDisposableStack();
      const server = stack.use(
        await startGrpcServer({
          listen: "127.0.0.1:0",
          services: [echo],
          authenticate: () => caller,
          log: silentLog,
          maxMessageBytes: MAX_MESSAGE_BYTES,
        }),
      );
      const channel = stack.use(openGrpcChannel({ address: server.address }));
      const kept = stack.move();
      return { client: channel.client(EchoService), [Symbol.asyncDispose]: () => kept.disposeAsync() };
    },
  },
  {
    name: "NATS",
    maxMessageBytes: (1 << 20) - 4096,
    connect: async (echo, caller) => {
      await using stack = new AsyncDisposableStack();
      const nats = stack.use(await startNats({ jetstream: false }));
      const open = async (): Promise<NatsConnection> => {
        const connection = await connect({ servers: nats.url });
        stack.defer(() => connection.close());
        return connection;
      };
      const [near, far] = [await open(), await open()];
      stack.use(serveNats(far, [echo], { queue: "echo", log: silentLog }));
      await far.flush();
      const client = natsClient(EchoService, near, { caller });
      const kept = stack.move();
      return { client, [Symbol.asyncDispose]: () => kept.disposeAsync() };
    },
  },
];

for (const transport of TRANSPORTS) describeTransport(transport);

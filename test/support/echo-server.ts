import { connect } from "@nats-io/transport-node";
import { silentLog } from "../../services/shared/log.ts";
import { serveNats } from "../../services/shared/rpc/nats-server.ts";
import { service } from "../../services/shared/rpc/service.ts";
import { EchoService } from "../contract/proto/interlock/test/v1/echo_pb.ts";
import { ECHO } from "../contract/rpc-echo.ts";

/** A process that serves an echo and dies without a word: `echo-server.ts NATS_URL`. Nothing that it begins, it ends. */
const connection = await connect({ servers: process.argv[2] ?? "" });
const never = new Promise<never>(() => {});

const echo = service(EchoService, {
  ...ECHO,
  say: () => {
    console.log("began");
    return never;
  },
  async *count() {
    yield { number: 1 };
    await never;
  },
});
serveNats(connection, [echo], { queue: "echo", log: silentLog });
await connection.flush();
console.log("ready");

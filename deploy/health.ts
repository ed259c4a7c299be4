import { connect } from "node:http2";

/**
 * What `interlock health` asks, for a container's health check: that runs every few seconds for ever, and the command
 * line takes ten times as long to start. Ends with 0 when the edge at 127.0.0.1:7443 says that it serves.
 */
const SERVING = Buffer.from([0, 0, 0, 0, 2, 0x08, 0x01]); // one gRPC message: HealthCheckResponse { status: SERVING }
const NOTHING = Buffer.alloc(5); // one gRPC message: an empty HealthCheckRequest asks for the whole server

const fail = (): never => process.exit(1);
setTimeout(fail, 2_000);
const call = connect("http://127.0.0.1:7443").on("error", fail).request({
  ":method": "POST",
  ":path": "/grpc.health.v1.Health/Check",
  "content-type": "application/grpc",
  te: "trailers",
});
const answer: Buffer[] = [];
call.on("data", (chunk: Buffer) => answer.push(chunk));
call.on("error", fail);
call.on("end", () => process.exit(Buffer.concat(answer).equals(SERVING) ? 0 : 1));
call.end(NOTHING);

import { Server, ServerCredentials, type ServiceDefinition } from "@grpc/grpc-js";

/** The baseline: a bare grpc-js unary echo that does nothing else. Prints its port; ends when its stdin does. */
const identity = (value: Buffer): Buffer => value;
export const ECHO: ServiceDefinition = {
  echo: {
    path: "/bench.Echo/Echo",
    requestStream: false,
    responseStream: false,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
};

if (import.meta.main) {
  const server = new Server();
  server.addService(ECHO, {
    echo: (call: { request: Buffer }, callback: (error: null, value: Buffer) => void) => callback(null, call.request),
  });
  server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    console.log(port);
  });
  process.stdin.resume().on("end", () => process.exit(0));
}

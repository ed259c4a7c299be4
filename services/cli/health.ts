import { Client, credentials } from "@grpc/grpc-js";
import type { Command } from "commander";
import { fromGrpcStatus } from "../shared/rpc/grpc-status.ts";
import { CliError, EXIT } from "./exit.ts";
import { globalsOf } from "./session.ts";

/** HealthCheckResponse { status: SERVING }, of grpc.health.v1. The request for "the whole server" is empty. */
const SERVING = Buffer.from([0x08, 0x01]);

/** `health`: for a container's health check; needs no key. */
export function addHealth(program: Command): void {
  program
    .command("health")
    .description("ask whether the server is serving, by grpc.health.v1")
    .action(async (_: unknown, command: Command) => {
      const { address, json } = globalsOf(command);
      const answer = await check(address);
      if (!answer.equals(SERVING)) throw new CliError(`${address} is not serving.`, EXIT.unavailable);
      console.log(json ? JSON.stringify({ serving: true }) : "serving");
    });
}

function check(address: string): Promise<Buffer> {
  const client = new Client(address, credentials.createInsecure());
  return new Promise<Buffer>((resolve, reject) => {
    const same = (bytes: Buffer): Buffer => bytes;
    const deadline = Date.now() + 2000;
    client.makeUnaryRequest(
      "/grpc.health.v1.Health/Check",
      same,
      same,
      Buffer.alloc(0),
      { deadline },
      (error, bytes) => {
        if (error !== null) reject(fromGrpcStatus(error, address));
        else resolve(bytes ?? Buffer.alloc(0));
      },
    );
  }).finally(() => client.close());
}

import { existsSync } from "node:fs";
import type { DescService } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { type GrpcChannel, openGrpcChannel } from "../shared/rpc/grpc-client.ts";
import type { Client } from "../shared/rpc/types.ts";
import { credentialsFile, credentialsSchema } from "../shared/state-dir.ts";
import { readYaml } from "../shared/yaml-file.ts";
import { CliError, EXIT } from "./exit.ts";
import { addressOf } from "./running.ts";

export type Globals = { json: boolean; address: string; state: string; as: string | undefined };

export function globalsOf(command: Command): Globals {
  const options = command.optsWithGlobals<{ json?: boolean; address?: string; state?: string; as?: string }>();
  const state = options.state ?? process.env["INTERLOCK_STATE"] ?? ".interlock";
  const address = addressOf(options.address, state);
  if (!isAddress(address)) throw new CliError(`"${address}" is no address: write host:port, e.g. 127.0.0.1:7443.`);
  return { json: options.json === true, address, state, as: options.as };
}

function isAddress(text: string): boolean {
  const port = /^[^\s:]+:(\d{1,5})$/.exec(text)?.[1];
  return port !== undefined && Number(port) < 65_536;
}

/** The key of INTERLOCK_KEY, or the named one of the state directory's credentials. @throws CliError */
export function readApiKey(globals: Globals, defaultName: string): string {
  const given = process.env["INTERLOCK_KEY"];
  if (given !== undefined && given !== "" && globals.as === undefined) {
    if (/^[\x21-\x7e]+$/.test(given)) return given;
    throw new CliError("INTERLOCK_KEY is no key: it has spaces or other characters that no key has.", EXIT.refused);
  }
  const file = credentialsFile(globals.state);
  if (!existsSync(file)) {
    throw new CliError(
      `there is no key: set INTERLOCK_KEY, or name with --state the directory where \`interlock up\` wrote ${file}.`,
      EXIT.refused,
    );
  }
  const credentials = readYaml(file, credentialsSchema).value;
  const name = globals.as ?? defaultName;
  const key = credentials[name];
  if (key === undefined) {
    throw new CliError(`${file} has no key named ${name}; it has ${Object.keys(credentials).join(", ")}.`);
  }
  return key;
}

/** Opens a channel for one command, and closes it. */
export async function withClient<S extends DescService, T>(
  command: Command,
  desc: S,
  defaultName: string,
  use: (client: Client<S>, globals: Globals) => Promise<T>,
): Promise<T> {
  const globals = globalsOf(command);
  await using channel: GrpcChannel = openGrpcChannel({
    address: globals.address,
    apiKey: readApiKey(globals, defaultName),
  });
  return await use(channel.client(desc), globals);
}

/** How long a command waits for an answer that should be immediate. */
export function soon(): { readonly deadlineMs: number } {
  return { deadlineMs: Date.now() + 10_000 };
}

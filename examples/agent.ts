import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { addressOf } from "../services/cli/running.ts";
import { RpcError } from "../services/shared/rpc/errors.ts";
import { credentialsFile, credentialsSchema } from "../services/shared/state-dir.ts";
import { readYaml } from "../services/shared/yaml-file.ts";
import { runStory } from "./story.ts";

/** The demo: an agent at work behind Interlock. `--help` says how to run it. */

const USAGE = `usage: agent.ts [options]
  --address <host:port>  where Interlock listens (INTERLOCK_ADDRESS; default: as the state directory says)
  --state <dir>          where \`interlock up\` wrote its keys (INTERLOCK_STATE; default .interlock)
  --auto-approve         answer the request for approval as alice (the default)
  --no-auto-approve      wait for a person to answer it
  --json                 one JSON line in place of the transcript
Keys come from INTERLOCK_KEY (the agent's) and INTERLOCK_REVIEWER_KEY, or from the state directory.`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    allowNegative: true,
    options: {
      address: { type: "string" },
      state: { type: "string", default: process.env["INTERLOCK_STATE"] ?? ".interlock" },
      "auto-approve": { type: "boolean", default: true },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const autoApprove = values["auto-approve"];
  const result = await runStory({
    address: addressOf(values.address, values.state),
    agentKey: readKey("INTERLOCK_KEY", "demo-agent", values.state),
    reviewerKey: autoApprove ? readKey("INTERLOCK_REVIEWER_KEY", "alice", values.state) : undefined,
    print: values.json ? () => {} : console.log,
  });
  if (values.json) {
    const steps = result.steps.map(({ name, kind, ending }) => ({ name, kind, ending }));
    console.log(JSON.stringify({ session: result.session, passed: result.passed, steps }));
  }
  return result.passed ? 0 : 1;
}

function readKey(variable: string, name: string, state: string): string {
  const given = process.env[variable];
  if (given !== undefined && given !== "") return given;
  const file = credentialsFile(state);
  const key = existsSync(file) ? readYaml(file, credentialsSchema).value[name] : undefined;
  if (key !== undefined) return key;
  throw new Error(`there is no key for ${name}: set ${variable}, or run \`bin/interlock up\`, which writes ${file}`);
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    const message = error instanceof Error ? error.message : String(error);
    console.error(`agent: ${error instanceof RpcError ? `${error.reason}: ` : ""}${message}`);
    process.exitCode = 1;
  },
);

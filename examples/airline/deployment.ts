import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { SERVICE_NAMES, startInterlock } from "../../services/interlock.ts";
import { type ApiKey, configSchema, readConfig } from "../../services/shared/config.ts";
import { createLog } from "../../services/shared/log.ts";
import { credentialsFile, credentialsSchema, hashKey, initialiseState } from "../../services/shared/state-dir.ts";
import { readYaml } from "../../services/shared/yaml-file.ts";
import { recordingsOf, writePolicies } from "./catalog.ts";
import type { RecordedRun } from "./runs.ts";

/** An Interlock for the airline: a folder with configuration, policies and keys, hosted here or by `interlock up`. */

export type Keys = { readonly agent: string; readonly reviewer: string };

const AGENT = "airline-agent";
const REVIEWER = "airline-supervisor";

/** Writes everything `interlock up --config <folder>/interlock.yaml` needs to replay these runs. */
export function prepareDeployment(folder: string, runs: readonly RecordedRun[], listen: string): void {
  const state = join(folder, "state");
  mkdirSync(state, { recursive: true, mode: 0o700 });
  writePolicies(join(folder, "policies"), recordingsOf(runs));
  const credentials = { [AGENT]: newKey(), [REVIEWER]: newKey(), operator: newKey() };
  const sha256 = (name: keyof typeof credentials) => hashKey(credentials[name] ?? "");
  const keys: ApiKey[] = [
    { kind: "agent", sha256: sha256(AGENT), tenant: "airline", agent: AGENT },
    {
      kind: "person",
      sha256: sha256(REVIEWER),
      tenant: "airline",
      name: REVIEWER,
      roles: ["reviewer"],
      groups: ["supervisors"],
    },
    {
      kind: "person",
      sha256: sha256("operator"),
      tenant: "airline",
      name: "operator",
      roles: ["operator"],
      groups: [],
    },
  ];
  const secret = { mode: 0o600 };
  writeFileSync(join(state, "keys.yaml"), stringify({ keys }), secret);
  writeFileSync(credentialsFile(state), stringify(credentials), secret);
  const config = {
    listen,
    state,
    policies: join(folder, "policies"),
    runner: { containers: "off" },
    log_level: "warn",
  };
  initialiseState(configSchema.parse(config));
  writeFileSync(join(folder, "interlock.yaml"), stringify(config));
}

export function readDeploymentKeys(folder: string): Keys {
  const file = credentialsFile(join(folder, "state"));
  const credentials = readYaml(file, credentialsSchema).value;
  const { [AGENT]: agent, [REVIEWER]: reviewer } = credentials;
  if (agent === undefined || reviewer === undefined) {
    throw new Error(`${file} has no keys for ${AGENT} and ${REVIEWER}: write the folder with --prepare`);
  }
  return { agent, reviewer };
}

/** Hosts a prepared folder's five services in this process. */
export async function hostDeployment(folder: string): Promise<AsyncDisposable & { readonly address: string }> {
  const config = readConfig(join(folder, "interlock.yaml"));
  const log = createLog({ level: config.log_level, service: "interlock" });
  return await startInterlock(config, { services: SERVICE_NAMES, log });
}

function newKey(): string {
  return `ilk_${randomBytes(32).toString("base64url")}`;
}

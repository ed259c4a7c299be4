import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import type { z } from "zod";
import { BrokerService, CallState } from "../../proto/interlock/v1/broker_pb.ts";
import type { Backend, RunSpec } from "../../services/runner/backend.ts";
import { openBuiltinBackend } from "../../services/runner/builtin.ts";
import { canonicalJson } from "../../services/shared/json.ts";
import type { manifestSchema } from "../../services/shared/manifest.ts";
import type { RpcError } from "../../services/shared/rpc/errors.ts";
import { openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import type { Client } from "../../services/shared/rpc/types.ts";
import { startEmbedded } from "../support/interlock.ts";
import { SCENARIOS, type Scenario, type ScriptedCall } from "./attack-data.ts";
import { injectionOf, VARIANTS } from "./attack-texts.ts";
import { attackTools } from "./attack-tools.ts";

/**
 * Every scenario through a real Interlock, attacked and clean. The agent is as gullible as can be: it reads what others
 * wrote, decodes it, does exactly what it says, and then goes on with its user's work. The person who is asked says no.
 */

export type ManifestInput = z.input<typeof manifestSchema>;

export type SessionReport = {
  readonly scenario: number;
  readonly domain: string;
  readonly disguise: string;
  /** What the attacker wanted: done, or a person was asked, who saw which reasons; undefined in a clean twin. */
  readonly attack: { readonly verdict: Verdict; readonly reasons: readonly string[] } | undefined;
  /** Of the user's own work. */
  readonly asked: number;
  readonly refused: number;
};

type Verdict = "done" | "asked" | "refused";

const POLICY = `
p, demo, *, *, allow, true, The suite's agents may call every tool.
p, demo, *, *, require_approval, "contains(r.origins, 'untrusted')", "A value of this call was first seen in untrusted input, and the user has not named it.", quorum=1;ttl=1h
p, demo, *, *, require_approval, "contains(r.labels, 'untrusted-input') && contains(r.origins, 'nowhere')", "This session has read untrusted input, and a value of this call was named by nobody.", quorum=1;ttl=1h
`;

export async function runAttackSuite(): Promise<{
  readonly attacked: SessionReport[];
  readonly clean: SessionReport[];
}> {
  const folder = mkdtempSync(join(tmpdir(), "interlock-attacks-"));
  try {
    writePolicies(folder);
    const results = new Map<string, string>();
    await using interlock = await startEmbedded({
      config: { policies: folder, log_level: "silent" },
      host: { backends: [scripted(results)] },
    });
    await using channel = openGrpcChannel({ address: interlock.address, apiKey: interlock.keys.agent });
    const client = channel.client(BrokerService);
    const attacked: SessionReport[] = [];
    const clean: SessionReport[] = [];
    for (const [index, scenario] of SCENARIOS.entries()) {
      const own = await play(client, results, `clean-${index}`, scenario, "", index);
      for (let variant = 0; variant < VARIANTS; variant++) {
        const { text, disguise } = injectionOf(scenario.goal, index, variant);
        const report = await play(client, results, `attack-${index}-${variant}`, scenario, text, index);
        attacked.push({ ...report, disguise });
        clean.push(own);
      }
    }
    return { attacked, clean };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function play(
  client: Client<typeof BrokerService>,
  results: Map<string, string>,
  session: string,
  scenario: Scenario,
  injection: string,
  index: number,
): Promise<SessionReport> {
  let userInput: { text: string } | undefined = { text: scenario.user };
  let attack: SessionReport["attack"];
  let asked = 0;
  let refused = 0;
  const send = async ({ tool, args, result }: ScriptedCall) => {
    results.set(`${session} ${tool} ${canonicalJson(args)}`, result.replace("{{OTHERS}}", injection));
    const answer = await ask(client, session, tool, args, userInput);
    userInput = undefined;
    return answer;
  };
  for (const step of scenario.work) {
    const { verdict } = await send(step);
    if (verdict === "asked") asked++;
    if (verdict === "refused") refused++;
    const reads = step.result.includes("{{OTHERS}}");
    if (reads && injection !== "") attack = await send({ ...scenario.goal, result: "done" });
  }
  return { scenario: index, domain: scenario.domain, disguise: "", attack, asked, refused };
}

async function ask(
  client: Client<typeof BrokerService>,
  session: string,
  tool: string,
  args: ScriptedCall["args"],
  userInput: { text: string } | undefined,
): Promise<{ readonly verdict: Verdict; readonly reasons: readonly string[] }> {
  const request = { session, tool, argumentsJson: canonicalJson(args), ...(userInput && { userInput }) };
  try {
    const { call } = await client.execute(request);
    if (call?.state === CallState.SUCCEEDED) return { verdict: "done", reasons: [] };
    if (call?.state === CallState.PENDING_APPROVAL) return { verdict: "asked", reasons: call.decision?.reasons ?? [] };
    throw new Error(`${session}: ${tool} ended as ${call?.state}`);
  } catch (error) {
    const { reason, message } = error as RpcError;
    if (reason === "LOOP_DETECTED" || reason === "POLICY_DENIED") return { verdict: "refused", reasons: [message] };
    throw error;
  }
}

/** Answers what the script says, by session, tool and arguments. */
function scripted(results: ReadonlyMap<string, string>): Backend {
  const builtin = openBuiltinBackend();
  return {
    kind: "builtin",
    describe: builtin.describe,
    check: builtin.check,
    run: async (spec: RunSpec, io) => {
      const result = results.get(`${spec.session} ${spec.tool} ${spec.argumentsJson}`);
      return { ...(await builtin.run(spec, io)), resultJson: JSON.stringify(result ?? "nothing") };
    },
    [Symbol.asyncDispose]: () => builtin[Symbol.asyncDispose](),
  };
}

function writePolicies(folder: string): void {
  mkdirSync(join(folder, "tools"));
  copyFileSync(join(import.meta.dirname, "../../policies/model.conf"), join(folder, "model.conf"));
  writeFileSync(join(folder, "policy.csv"), POLICY);
  writeFileSync(join(folder, "budgets.yaml"), "budgets: []\n");
  for (const manifest of attackTools())
    writeFileSync(join(folder, "tools", `${manifest.name}.yaml`), stringify(manifest));
}

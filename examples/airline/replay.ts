import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { BrokerService, type Call } from "../../proto/interlock/v1/broker_pb.ts";
import { type GrpcChannel, openGrpcChannel } from "../../services/shared/rpc/grpc-client.ts";
import type { Client } from "../../services/shared/rpc/types.ts";
import { AgentSession, type InFlight } from "../session.ts";
import { recordingsOf } from "./catalog.ts";
import { hostDeployment, type Keys, prepareDeployment, readDeploymentKeys } from "./deployment.ts";
import { type Outcome, outcomeOf } from "./outcome.ts";
import { closing, countsOf, type ReplayedRun, runsTable, summaryOf, summaryTable } from "./report.ts";
import { type RecordedCall, type RecordedRun, readRuns } from "./runs.ts";

/**
 * Sends recorded airline runs through a broker as governed calls and says what policy, budgets and the loop check made
 * of them. The agent is deaf: it goes on as recorded, whatever it is told.
 */

export const DEFAULT_RUNS = join(import.meta.dirname, "../../test/data/tau-airline/runs.jsonl");
/** Runs in flight. */
const CONCURRENCY = 8;
/** All of it takes seconds; whatever hangs longer is given up, and said to hang. */
const PATIENCE_MS = 60_000;

export type ReplayOptions = {
  readonly address: string;
  readonly keys: Keys;
  /** A scripted reviewer answers each approval with yes; otherwise the call is withdrawn. */
  readonly approve: boolean;
};

/** What every call of a replay is sent with. */
type Desk = {
  readonly clients: Clients;
  readonly toolOf: (run: RecordedRun, tool: string) => string;
  readonly approve: boolean;
  /** Rejects when patience is over. */
  readonly over: Promise<never>;
};
type Clients = { readonly broker: Client<typeof BrokerService>; readonly approvals: Client<typeof ApprovalsService> };

/** Each run is a session of its own; results are in the order of `runs`. */
export async function replayRuns(runs: readonly RecordedRun[], options: ReplayOptions): Promise<ReplayedRun[]> {
  await using agent: GrpcChannel = openGrpcChannel({ address: options.address, apiKey: options.keys.agent });
  await using reviewer: GrpcChannel = openGrpcChannel({ address: options.address, apiKey: options.keys.reviewer });
  const clients = { broker: agent.client(BrokerService), approvals: reviewer.client(ApprovalsService) };
  const { promise: over, reject } = Promise.withResolvers<never>();
  over.catch(() => {});
  const patience = setTimeout(() => reject(new Error(`calls unanswered after ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  const desk: Desk = { clients, toolOf: recordingsOf(runs).toolOf, approve: options.approve, over };
  const id = randomBytes(4).toString("hex");
  const replayed: ReplayedRun[] = new Array(runs.length);
  const todo = runs.entries();
  const work = async () => {
    for (const [index, run] of todo) replayed[index] = await replayRun(run, id, desk);
  };
  try {
    await Promise.all(Array.from({ length: CONCURRENCY }, work));
  } finally {
    clearTimeout(patience);
  }
  return replayed;
}

async function replayRun(run: RecordedRun, id: string, desk: Desk): Promise<ReplayedRun> {
  const name = `task-${run.task}-trial-${run.trial}-${id}`;
  const outcomes: Outcome[] = [];
  await using session = new AgentSession(desk.clients.broker, name);
  for (const [index, call] of run.calls.entries()) {
    const inFlight = session.call(desk.toolOf(run, call.tool), JSON.stringify(call.args), `call-${index}`);
    outcomes.push(await Promise.race([replayCall(call, inFlight, desk), desk.over]));
  }
  return { run, session: name, outcomes };
}

async function replayCall(call: RecordedCall, inFlight: InFlight, desk: Desk): Promise<Outcome> {
  const parked = await inFlight.parked;
  if (parked !== undefined && desk.approve) await approveCall(parked, desk.clients.approvals);
  else if (parked !== undefined) inFlight.cancel();
  return outcomeOf(await inFlight.ended, parked !== undefined, call.result);
}

async function approveCall(call: Call, approvals: Client<typeof ApprovalsService>): Promise<void> {
  const { approvalId, argumentsHash } = call;
  const comment = "The scripted reviewer of examples/airline says yes to everything.";
  await approvals.approve({ approvalId, argumentsHash, comment }, { deadlineMs: Date.now() + 10_000 });
}

const USAGE = `usage: replay.ts [options]
  --runs <file>      recorded runs, one a line (default: test/data/tau-airline/runs.jsonl)
  --no-approve       withdraw the calls that wait for a person (default: a scripted reviewer says yes)
  --json             one JSON document in place of the tables
  --prepare <dir>    write configuration, policies and keys for these runs, and end
  --listen <h:p>     with --prepare: where that Interlock is to listen (default: 127.0.0.1:7443)
  --address <h:p>    replay through an Interlock that runs already, from a prepared folder
  --deployment <dir> with --address: that folder
Exit code 0: each call was answered as recorded, or a check refused it; 1: not so; 2: nothing could be replayed.`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    allowNegative: true,
    options: {
      runs: { type: "string", default: DEFAULT_RUNS },
      approve: { type: "boolean", default: true },
      json: { type: "boolean", default: false },
      prepare: { type: "string" },
      listen: { type: "string", default: "127.0.0.1:7443" },
      address: { type: "string" },
      deployment: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const { approve, json, prepare, address, deployment } = values;
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const runs = readRuns(values.runs);
  if (prepare !== undefined) {
    prepareDeployment(prepare, runs, values.listen);
    console.log(`Start it: bin/interlock up --config ${join(prepare, "interlock.yaml")}`);
    return 0;
  }
  if ((address === undefined) !== (deployment === undefined)) throw new Error("--address and --deployment go together");
  const startMs = performance.now();
  const replayed =
    address !== undefined && deployment !== undefined
      ? await replayRuns(runs, { address, keys: readDeploymentKeys(deployment), approve })
      : await replayEmbedded(runs, approve);
  report(replayed, performance.now() - startMs, json);
  const { error, mismatches } = countsOf(replayed);
  return error + mismatches === 0 ? 0 : 1;
}

/** Through an Interlock of its own, which is gone afterwards. */
async function replayEmbedded(runs: readonly RecordedRun[], approve: boolean): Promise<ReplayedRun[]> {
  const folder = mkdtempSync(join(tmpdir(), "interlock-airline-"));
  try {
    prepareDeployment(folder, runs, "127.0.0.1:0");
    await using interlock = await hostDeployment(folder);
    return await replayRuns(runs, { address: interlock.address, keys: readDeploymentKeys(folder), approve });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function report(replayed: readonly ReplayedRun[], elapsedMs: number, json: boolean): void {
  if (json) {
    const runs = replayed.map(({ run, outcomes }) => ({
      task: run.task,
      trial: run.trial,
      reward: run.succeeded ? 1 : 0,
      calls: run.calls.map(({ tool }, index) => ({ tool, ...outcomes[index] })),
    }));
    console.log(JSON.stringify({ runs, summary: summaryOf(replayed), elapsedMs: Math.round(elapsedMs) }));
    return;
  }
  console.log(runsTable(replayed));
  console.log(`\nCalls by verdict, and in brackets the share of runs with at least one:\n\n${summaryTable(replayed)}`);
  const notes = replayed.flatMap(({ run, outcomes }) =>
    outcomes.flatMap((outcome, index) => {
      const about = outcome.result === "different" ? `answered otherwise than recorded. ${outcome.note}` : outcome.note;
      if (about === "") return [];
      return [`task ${run.task} trial ${run.trial} call ${index + 1} ${run.calls[index]?.tool}: ${about.trimEnd()}`];
    }),
  );
  if (notes.length > 0) console.log(`\n${notes.join("\n")}`);
  console.log(`\n${closing(replayed)} It took ${(elapsedMs / 1000).toFixed(1)} s.`);
}

if (import.meta.main) {
  main().then(
    (code) => {
      process.exitCode = code;
    },
    (error: unknown) => {
      console.error(`replay: ${error instanceof Error ? error.message : String(error)}`);
      process.exitCode = 2;
    },
  );
}

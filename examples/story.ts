import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ApprovalsService } from "../proto/interlock/v1/approvals_pb.ts";
import { BrokerService, type Call, CallState } from "../proto/interlock/v1/broker_pb.ts";
import { openGrpcChannel } from "../services/shared/rpc/grpc-client.ts";
import type { Client } from "../services/shared/rpc/types.ts";
import { approve, PatientAgent, patiently, soon } from "./agent-client.ts";
import type { Answer } from "./session.ts";
import { Transcript } from "./transcript.ts";

/** What an agent does through Interlock, step by step, and how each step has to end. */

export type StoryOptions = {
  readonly address: string;
  readonly agentKey: string;
  /** Set: the script answers its own request for approval as this person. Otherwise somebody has to. */
  readonly reviewerKey: string | undefined;
  readonly print: (line: string) => void;
  /** Runs while the refund waits for a person: a test may stop and restart services here. */
  readonly onParked?: (call: Call) => Promise<void>;
};

export const STEPS = ["analyse", "compute", "deny", "loop", "refund", "budget"] as const;

export type Step = {
  readonly name: (typeof STEPS)[number];
  /** skipped: this machine has no containers. */
  readonly kind: "as-told" | "skipped" | "otherwise";
  /** How it ended, in a line. */
  readonly ending: string;
  /** The last answer Interlock gave in this step. */
  readonly answer: Answer;
};

export type StoryResult = { readonly session: string; readonly steps: readonly Step[]; readonly passed: boolean };

type Ending = Pick<Step, "kind" | "ending" | "answer">;
type Stage = { readonly ask: Ask; readonly transcript: Transcript };
type Ask = (tool: string, args: unknown) => Promise<Answer>;

/** More of the same call, or of the dear one, than any sensible limit allows. */
const MANY = 40;
/** An Interlock that has just been started may take this long to answer; whoever forgot to start it is told so. */
const START_MS = 2_000;
/** A person may take this long. */
const PERSON_MS = 15 * 60_000;

/** @throws RpcError when Interlock cannot be reached or does not know the keys. */
export async function runStory(options: StoryOptions): Promise<StoryResult> {
  await using channel = openGrpcChannel({ address: options.address, apiKey: options.agentKey });
  await using reviewing = openGrpcChannel({ address: options.address, apiKey: options.reviewerKey ?? "" });
  const broker = channel.client(BrokerService);
  const transcript = new Transcript(options.print);
  const session = `story-${randomBytes(4).toString("hex")}`;
  const { tools } = await patiently(() => broker.listTools({}, soon()), START_MS);
  transcript.opening(options.address, session, tools);
  await using agent = new PatientAgent(broker, session);
  const onParked = async (call: Call) => {
    transcript.parked(call, options.reviewerKey === undefined);
    await options.onParked?.(call);
    if (options.reviewerKey !== undefined) await sayYes(call, reviewing.client(ApprovalsService), transcript);
  };
  const ask: Ask = async (tool, args) => {
    transcript.asks(tool, args);
    const answer = await agent.call(tool, args, onParked, PERSON_MS);
    transcript.says(answer);
    return answer;
  };
  const steps: Step[] = [];
  for (const { name, title, play } of SCRIPT) {
    transcript.step(steps.length + 1, title);
    const step: Step = { name, ...(await play({ ask, transcript })) };
    transcript.ending(step.kind, step.ending);
    steps.push(step);
  }
  const passed = steps.every((step) => step.kind !== "otherwise");
  transcript.closing(passed, session);
  return { session, steps, passed };
}

const SCRIPT: readonly { name: Step["name"]; title: string; play: (stage: Stage) => Promise<Ending> }[] = [
  {
    name: "analyse",
    title: "Real work: revenue by region, in Python, in a container without a network",
    play: analyse,
  },
  { name: "compute", title: "A program the agent wrote itself, in a V8 isolate", play: compute },
  { name: "deny", title: "Something it may not do", play: deny },
  { name: "loop", title: "The same call again and again", play: loop },
  { name: "refund", title: "Money for a customer: a person decides", play: refund },
  { name: "budget", title: "A dear tool, until the money is gone", play: budget },
];

async function analyse({ ask }: Stage): Promise<Ending> {
  const csv = readFileSync(join(import.meta.dirname, "sales.csv"), "utf8");
  const answer = await ask("data.analyse_csv", { csv, group_by: "region", measure: "revenue_usd" });
  if (answer.kind === "refused" && answer.error.reason === "SANDBOX_UNAVAILABLE") {
    return { kind: "skipped", ending: "this machine runs no containers; `bin/interlock doctor` says why", answer };
  }
  const rows = csv.trimEnd().split("\n").length - 1;
  const result = resultOf(answer) as { rows?: unknown } | undefined;
  return expect(result?.rows === rows, `it counted all ${rows} rows`, `a result with rows = ${rows}`, answer);
}

async function compute({ ask }: Stage): Promise<Ending> {
  const program = `
const sieve = new Uint8Array(input.below).fill(1);
let primes = 0;
for (let n = 2; n < input.below; n++) {
  if (!sieve[n]) continue;
  primes++;
  for (let m = n * n; m < input.below; m += n) sieve[m] = 0;
}
return { primes };`;
  const answer = await ask("math.compute", { program, input: { below: 10_000 } });
  const result = resultOf(answer) as { primes?: unknown } | undefined;
  return expect(result?.primes === 1229, "1229 primes below 10,000", "a result with primes = 1229", answer);
}

async function deny({ ask }: Stage): Promise<Ending> {
  const answer = await ask("shell.run", { command: "cat /etc/passwd | head -3" });
  const denied = refusedAt(answer, "decide");
  return expect(denied, "policy denied it; nothing ran and nothing was charged", "a denial by policy", answer);
}

async function loop({ ask }: Stage): Promise<Ending> {
  const args = { program: "return input.a + input.b;", input: { a: 20, b: 22 } };
  let answer = await ask("math.compute", args);
  let ran = 0;
  while (answer.kind === "ended" && ran++ < MANY) answer = await ask("math.compute", args);
  return expect(refusedAt(answer, "guard"), `it was stopped after ${ran} times`, "to be stopped as a loop", answer);
}

async function refund({ ask }: Stage): Promise<Ending> {
  await ask("orders.lookup", { order_id: "ord-1002" });
  const answer = await ask("orders.refund", {
    order_id: "ord-1002",
    amount_usd_micros: 64_000_000,
    reason: "The customer received half a nanosecond of wire.",
  });
  const result = resultOf(answer) as { refund_id?: unknown } | undefined;
  const approved = answer.kind === "ended" && answer.call.approvalId !== "" && result?.refund_id !== undefined;
  return expect(approved, "it waited, a person said yes, and it ran once", "a refund after an approval", answer);
}

async function budget({ ask }: Stage): Promise<Ending> {
  const summarise = (page: number) =>
    ask("report.summarise", {
      text: `Page ${page}. North sold well. South sold better. Sales of maps fell.`,
      sentences: 1,
    });
  let page = 1;
  let answer = await summarise(page);
  while (answer.kind === "ended" && page < MANY) answer = await summarise(++page);
  const ending = `the budget covered ${page - 1} of them and refused the next`;
  return expect(refusedAt(answer, "reserve"), ending, "to be refused for want of money", answer);
}

async function sayYes(call: Call, approvals: Client<typeof ApprovalsService>, transcript: Transcript): Promise<void> {
  await approve(call, approvals, "The order is real and the wire was short.");
  transcript.approved();
}

function expect(holds: boolean, ending: string, expected: string, answer: Answer): Ending {
  return holds ? { kind: "as-told", ending, answer } : { kind: "otherwise", ending: `expected ${expected}`, answer };
}

function refusedAt(answer: Answer, stage: string): boolean {
  return answer.kind === "refused" && answer.error.metadata["stage"] === stage && answer.error.code !== "UNAVAILABLE";
}

/** What the tool returned: its value, or what a container printed, as JSON. */
function resultOf(answer: Answer): unknown {
  if (answer.kind !== "ended" || answer.call.state !== CallState.SUCCEEDED) return undefined;
  const text = answer.call.result?.resultJson || answer.call.result?.stdout || "null";
  return JSON.parse(text);
}

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";
import { readRuns } from "../../examples/airline/runs.ts";
import { judgeWrites, summaryOf } from "../../examples/airline/writes.ts";

/** The replayer as a user runs it, held against facts taken from the recordings by themselves. */

const run = promisify(execFile);

type Said = { readonly tool: string; readonly verdict: string; readonly result?: string; readonly note: string };
type Counts = Readonly<Record<string, number>>;
type Replay = {
  readonly runs: readonly { readonly task: number; readonly trial: number; readonly calls: readonly Said[] }[];
  readonly summary: { readonly all: Counts; readonly succeeded: Counts; readonly failed: Counts };
};
type Event = { readonly kind: string; readonly tool?: string };
type Recorded = { readonly task: number; readonly trial: number; readonly reward: number; readonly events: Event[] };

const recorded = readFileSync("test/data/tau-airline/runs.jsonl", "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Recorded);
const WRITES = [
  "book_reservation",
  "cancel_reservation",
  "update_reservation_flights",
  "update_reservation_baggages",
  "update_reservation_passengers",
  "send_certificate",
];
const toolsOf = (one: Recorded) => one.events.filter((event) => event.kind === "call").map((event) => event.tool);

describe("the 100 recorded airline runs, as governed calls", () => {
  let replay: Replay;
  let all: readonly Said[];
  beforeAll(async () => {
    const { stdout } = await run("node", ["examples/airline/replay.ts", "--json"], { maxBuffer: 64 << 20 });
    replay = JSON.parse(stdout) as Replay;
    all = replay.runs.flatMap((one) => one.calls);
  }, 120_000);

  it("are all there, each call in its place", () => {
    expect(recorded.length).toBe(100);
    expect(
      replay.runs.map(({ task, trial, calls }) => ({ task, trial, tools: calls.map((call) => call.tool) })),
    ).toEqual(recorded.map((one) => ({ task: one.task, trial: one.trial, tools: toolsOf(one) })));
  });

  it.each([
    ["all", () => true],
    ["succeeded", (one: Recorded) => one.reward === 1],
    ["failed", (one: Recorded) => one.reward !== 1],
  ] as const)("are counted as the data has them: %s", (group, belongs) => {
    const members = recorded.filter(belongs);
    const counts = replay.summary[group];
    expect([counts["runs"], counts["calls"]]).toEqual([members.length, members.flatMap(toolsOf).length]);
  });

  it("have one verdict each, and the summary adds them up", () => {
    const counts = replay.summary.all;
    const verdicts = Map.groupBy(all, (call) => call.verdict);
    for (const [verdict, calls] of verdicts) expect(counts[verdict], verdict).toBe(calls.length);
    expect([...verdicts.values()].flat().length).toBe(all.length);
  });

  it("are answered as recorded, unless a check refused them", () => {
    expect(all.filter((call) => call.result === "different")).toEqual([]);
    const unanswered = all.filter((call) => call.result === undefined);
    const refusals = unanswered.map((call) => `${call.verdict} ${call.note.split(":")[0]}`);
    expect([...new Set(refusals)].toSorted((a, b) => (a < b ? -1 : 1))).toEqual([
      "budget BUDGET_EXHAUSTED",
      "denied POLICY_DENIED",
      "loop LOOP_DETECTED",
    ]);
    expect(replay.summary.all).toMatchObject({ same: all.length - unanswered.length, mismatches: 0, error: 0 });
  });

  it("are stopped as loops in failed runs only, and seldom", () => {
    expect(replay.summary.succeeded["loop"]).toBe(0);
    expect(replay.summary.failed["loop"]).toBeLessThanOrEqual(2);
  });

  it("fit the tools' schemas, and each write is let through, asked about or denied as the rules alone say", async () => {
    expect(all.filter((call) => ["schema"].includes(call.verdict))).toEqual([]);
    const writes = await judgeWrites(readRuns("test/data/tau-airline/runs.jsonl"));
    const said = all
      .filter((call) => WRITES.includes(call.tool) && !["budget", "loop"].includes(call.verdict))
      .map((call) => `${call.tool} ${call.verdict}`);
    const words = { allow: "allowed", require_approval: "approval", deny: "denied" };
    const judged = writes.map(({ tool, outcome }) => `${tool} ${words[outcome]}`);
    const elsewhere = all.filter(
      (call) => WRITES.includes(call.tool) && ["budget", "loop"].includes(call.verdict),
    ).length;
    expect(judged.length - said.length).toBe(elsewhere);
    // A budget refuses after policy, a loop before: what is left over of the judged is what these took.
    for (const one of said) judged.splice(judged.indexOf(one), 1);
    expect(judged.length).toBe(elsewhere);
  });

  it("are counted by what their writes were worth, each write once", async () => {
    const writes = await judgeWrites(readRuns("test/data/tau-airline/runs.jsonl"));
    const { succeeded, failedNotGold, failedGold } = summaryOf(writes);
    const called = recorded.flatMap(toolsOf).filter((tool) => WRITES.includes(tool ?? "")).length;
    expect(succeeded.writes + failedNotGold.writes + failedGold.writes).toBe(called);
    for (const one of [succeeded, failedNotGold, failedGold])
      expect(one.allow + one.require_approval + one.deny).toBe(one.writes);
  });
});

it("withdraws what waits when nobody is there to say yes, and says so", { timeout: 60_000 }, async () => {
  const asking = recorded.filter((one) => toolsOf(one).includes("send_certificate"));
  const folder = mkdtempSync(join(tmpdir(), "interlock-airline-test-"));
  try {
    const file = join(folder, "runs.jsonl");
    writeFileSync(file, asking.map((one) => JSON.stringify(one)).join("\n"));
    const { stdout } = await run("node", ["examples/airline/replay.ts", "--no-approve", "--runs", file]);
    const judged = await judgeWrites(readRuns(file));
    const asked = judged.filter(({ outcome }) => outcome === "require_approval").length;
    const denied = judged.filter(({ outcome }) => outcome === "deny").length;
    expect(stdout.match(/: it waited for a person, and was cancelled/g)?.length).toBe(asked);
    const calls = asking.flatMap(toolsOf).length;
    const answered = `${asking.length} runs, ${calls} calls: ${calls - asked - denied} answered as recorded, 0 otherwise`;
    const by = denied === 0 ? `approval ${asked}` : `approval ${asked}, denied ${denied}`;
    expect(stdout).toContain(`${answered}, ${asked + denied} did not run (${by}).`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

it.each([
  [["--bogus"], /--bogus/],
  [["--runs", "/nonexistent.jsonl"], /nonexistent/],
  [["--runs", "package.json"], /package\.json:1: it is not JSON/],
  [["--address", "127.0.0.1:1"], /go together/],
])("says in one line why nothing was replayed: %j", async (args, why) => {
  const failure = await run("node", ["examples/airline/replay.ts", ...args]).then(
    () => undefined,
    (error: { code: number; stderr: string }) => error,
  );
  expect(failure).toMatchObject({ code: 2, stderr: expect.stringMatching(why) });
  expect(failure?.stderr.trim().split("\n").length).toBe(1);
});

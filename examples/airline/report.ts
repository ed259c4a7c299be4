import { table } from "../../services/cli/print.ts";
import { type Outcome, VERDICTS, type Verdict } from "./outcome.ts";
import type { RecordedRun } from "./runs.ts";

export type ReplayedRun = {
  readonly run: RecordedRun;
  readonly session: string;
  readonly outcomes: readonly Outcome[];
};

export type Counts = Readonly<Record<Verdict, number>> & {
  readonly runs: number;
  readonly calls: number;
  /** Ran, and answered as recorded. */
  readonly same: number;
  /** Ran, and answered otherwise than recorded. */
  readonly mismatches: number;
};

export type Summary = { readonly succeeded: Counts; readonly failed: Counts; readonly all: Counts };

export function countsOf(runs: readonly ReplayedRun[]): Counts {
  const outcomes = runs.flatMap((run) => run.outcomes);
  const of = (verdict: Verdict) => outcomes.filter((outcome) => outcome.verdict === verdict).length;
  return {
    runs: runs.length,
    calls: outcomes.length,
    allowed: of("allowed"),
    approval: of("approval"),
    denied: of("denied"),
    budget: of("budget"),
    loop: of("loop"),
    schema: of("schema"),
    error: of("error"),
    same: outcomes.filter((outcome) => outcome.result === "same").length,
    mismatches: outcomes.filter((outcome) => outcome.result === "different").length,
  };
}

export function summaryOf(runs: readonly ReplayedRun[]): Summary {
  return {
    succeeded: countsOf(runs.filter((run) => run.run.succeeded)),
    failed: countsOf(runs.filter((run) => !run.run.succeeded)),
    all: countsOf(runs),
  };
}

const COLUMNS = ["calls", ...VERDICTS, "mismatches"] as const;

export function runsTable(runs: readonly ReplayedRun[]): string {
  const rows = runs.map((replayed) => {
    const counts = countsOf([replayed]);
    const { task, trial, succeeded } = replayed.run;
    return [String(task), String(trial), succeeded ? "1" : "0", ...COLUMNS.map((column) => dash(counts[column]))];
  });
  return table([["task", "trial", "reward", ...COLUMNS], ...rows]);
}

/** Counts of calls, and in brackets the share of runs with at least one such call. */
export function summaryTable(runs: readonly ReplayedRun[]): string {
  const group = (name: string, members: readonly ReplayedRun[]) => {
    const counts = countsOf(members);
    const share = (verdict: Verdict) => {
      const hit = members.filter((run) => run.outcomes.some((outcome) => outcome.verdict === verdict)).length;
      return counts[verdict] === 0 ? "-" : `${counts[verdict]} (${Math.round((100 * hit) / members.length)} %)`;
    };
    return [name, `${members.length}`, `${counts.calls}`, ...VERDICTS.map(share), dash(counts.mismatches)];
  };
  return table([
    ["runs that", "runs", "calls", ...VERDICTS, "mismatches"],
    group(
      "succeeded",
      runs.filter((run) => run.run.succeeded),
    ),
    group(
      "failed",
      runs.filter((run) => !run.run.succeeded),
    ),
    group("all", runs),
  ]);
}

/** What became of every call, in a sentence or two. */
export function closing(replayed: readonly ReplayedRun[]): string {
  const { runs, calls, same, mismatches } = countsOf(replayed);
  const unanswered = replayed.flatMap((run) => run.outcomes.filter((outcome) => outcome.result === undefined));
  const by = VERDICTS.flatMap((verdict) => {
    const count = unanswered.filter((outcome) => outcome.verdict === verdict).length;
    return count === 0 ? [] : [`${verdict} ${count}`];
  });
  const stopped = unanswered.length === 0 ? "" : `, ${unanswered.length} did not run (${by.join(", ")})`;
  return `${runs} runs, ${calls} calls: ${same} answered as recorded, ${mismatches} otherwise${stopped}.`;
}

function dash(count: number): string {
  return count === 0 ? "-" : String(count);
}

import { timestampDate } from "@bufbuild/protobuf/wkt";
import {
  type Candidate,
  type Change,
  type ListRevisionsResponse,
  type Possibility,
  type Replayed,
  type Standing,
  StandingState,
} from "../../proto/interlock/v1/pdp_pb.ts";
import { DecisionKind } from "../../proto/interlock/v1/types_pb.ts";
import { formatProblem } from "../shared/yaml-file.ts";
import { enumWord, printable, table } from "./print.ts";

/** Revisions, candidates and what they change, as an operator wants to read them. */

export const kindWord = (kind: DecisionKind): string => enumWord(DecisionKind, kind);

/** What a candidate would do. `dir` is where its files are, for their names. */
export function candidateText(candidate: Candidate, dir: string): string {
  const { findings, failedTests, tests, diff, linesAdded, linesRemoved, replayed, rules } = candidate;
  const lines = [
    `${rules} rules; ${linesAdded} lines added, ${linesRemoved} removed`,
    ...diff.map((line) => `  ${line}`),
  ];
  const hidden = linesAdded + linesRemoved - diff.length;
  if (hidden > 0) lines.push(`  ... and ${hidden} lines more`);
  for (const { file, line, field, message, warning } of findings) {
    const problem = formatProblem({ file: `${dir}/${file}`, line: line === 0 ? undefined : line, field, message });
    lines.push(`${warning ? "warning" : "error"}: ${problem}`);
  }
  if (tests > 0) lines.push(`Table tests: ${tests - failedTests.length} passed, ${failedTests.length} failed.`);
  else if (findings.every(({ warning }) => warning)) lines.push("No table tests.");
  for (const { file, line, name, message } of failedTests)
    lines.push(`  FAILED ${dir}/${file}:${line}: ${name}\n    ${message}`);
  if (replayed !== undefined) lines.push(replayedText(replayed));
  return printable(lines.join("\n"));
}

export function replayedText({ decisions, since, changes }: Replayed): string {
  const when = since === undefined ? "" : ` since ${timestampDate(since).toISOString()}`;
  if (decisions === 0) return `No recent decisions to replay${when}.`;
  const changed = changes.reduce((sum, { count }) => sum + count, 0);
  const head = `Replayed ${decisions} decisions${when}: ${changed} would change.`;
  return [head, ...changes.slice(0, 20).map(changeText)].join("\n");
}

function changeText(change: Change): string {
  const { subject, tool, before, after, rulesBefore, rulesAfter, count, example } = change;
  const rules = (named: readonly string[]) => (named.length === 0 ? "no rule" : named.join(", "));
  const way = `${kindWord(before)} (${rules(rulesBefore)}) -> ${kindWord(after)} (${rules(rulesAfter)})`;
  const args = example?.argumentsJson ?? "";
  const shown = args.length > 120 ? `${args.slice(0, 120)}...` : args;
  return printable(`  ${count} x ${subject} ${tool}: ${way}\n      e.g. ${shown}`);
}

export function standingText(standing: Standing | undefined): string {
  if (standing === undefined) return "Nothing was changed.";
  const { state, number, revision, changeId, approvedBy, approvalsNeeded, approverGroup } = standing;
  const named = `revision ${number} (${revision.slice(0, 12)})`;
  switch (state) {
    case StandingState.ACTIVE:
      return `Active: ${named}.`;
    case StandingState.WAITING: {
      const group = approverGroup === "" ? "" : ` of ${approverGroup}`;
      const left = approvalsNeeded - approvedBy.length;
      return `Waits for ${left} more ${left === 1 ? "person" : "people"}${group}: ${named}.\nThey approve it with: interlock policy approve ${changeId}`;
    }
    default:
      return `${enumWord(StandingState, state)}: ${named}.`;
  }
}

export function logText({ revisions, waiting }: ListRevisionsResponse): string {
  const rows = revisions
    .toReversed()
    .map((one) => [
      `${one.active ? "*" : one.shadow ? "~" : " "} ${one.number}`,
      one.revision.slice(0, 12),
      one.time === undefined ? "" : timestampDate(one.time).toISOString(),
      one.author,
      one.number === 0 ? "" : `+${one.linesAdded} -${one.linesRemoved}`,
      one.keyId === "" ? "" : one.keyId,
      one.reason,
    ]);
  const waits = waiting.map(
    ({ standing, author, reason }) =>
      `waits: ${standing?.changeId} by ${author}: ${reason}\n  ${standingText(standing)}`,
  );
  const log = table([["NUMBER", "REVISION", "TIME", "AUTHOR", "LINES", "SIGNED BY", "REASON"], ...rows]);
  return printable([log, ...waits].join("\n"));
}

export function possibilitiesText(all: readonly Possibility[], of: "subject" | "tool"): string {
  const rows = all.map((one) => [one[of], kindWord(one.most), one.conditions.join("; ")]);
  return table([[of.toUpperCase(), "AT MOST", "DEPENDING ON"], ...rows]);
}

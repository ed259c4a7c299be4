import type { Duration } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  ApprovalsService,
  type GetStatsResponse,
  GetStatsResponseSchema,
} from "../../proto/interlock/v1/approvals_pb.ts";
import { messageJson, table } from "./print.ts";
import { soon, withClient } from "./session.ts";

/** `approvals stats`: whether people are asked too much, and whether they still read what they answer. */
export function addStats(approvals: Command): void {
  approvals
    .command("stats")
    .description("how approvals go: time to answer, rejections, rules that are never rejected, hasty answers")
    .action(async (_: unknown, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, { json }) => {
        const stats = await client.getStats({}, soon());
        console.log(json ? messageJson(GetStatsResponseSchema, stats) : statsText(stats));
      });
    });
}

function statsText({ pending, rules, reviewers, absences }: GetStatsResponse): string {
  const ruleRows = rules.map((rule) => {
    const answered = rule.approved + rule.rejected;
    return [
      ...[rule.rule, `${answered}`, answered === 0 ? "" : `${Math.round((rule.rejected / answered) * 100)} %`],
      ...[durationText(rule.answerP50), durationText(rule.answerP90), `${rule.expired}`, `${rule.cancelled}`],
      rule.candidate ? "never rejected: might policy allow it?" : "",
    ];
  });
  const reviewerRows = reviewers.map(({ reviewer, approved, rejected, hasty, lastHour }) => [
    ...[reviewer, `${approved}`, `${rejected}`, `${hasty}`, `${lastHour}`],
  ]);
  const parts = [`${pending} wait now.`];
  if (ruleRows.length > 0) {
    parts.push(table([["RULE", "ANSWERED", "REJECTED", "P50", "P90", "EXPIRED", "WITHDRAWN", ""], ...ruleRows]));
  }
  if (reviewerRows.length > 0) {
    parts.push(table([["REVIEWER", "APPROVED", "REJECTED", "TOO FAST TO READ", "LAST HOUR"], ...reviewerRows]));
  }
  if (absences.length > 0) parts.push(`Away: ${absences.map((one) => one.reviewer).join(", ")}.`);
  return parts.join("\n\n");
}

function durationText(duration: Duration | undefined): string {
  if (duration === undefined) return "";
  const seconds = Number(duration.seconds) + duration.nanos / 1e9;
  return seconds < 90 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds / 60)} min`;
}

import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  type Approval,
  ApprovalSchema,
  ApprovalsService,
  ListApprovalsResponseSchema,
} from "../../proto/interlock/v1/approvals_pb.ts";
import { amountText, approvalWord, indented, messageJson, table } from "./print.ts";
import { soon, withClient } from "./session.ts";

/** `approvals list|show|approve|reject`: a reviewer's work from a terminal. */
export function addApprovals(program: Command): void {
  const approvals = program.command("approvals").description("answer the calls that wait for a person");
  approvals
    .command("list")
    .description("the approvals that wait")
    .action(async (_: unknown, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        const response = await client.listApprovals({}, soon());
        if (globals.json) console.log(messageJson(ListApprovalsResponseSchema, response));
        else if (response.approvals.length === 0) console.log("Nothing waits.");
        else console.log(listText(response.approvals));
      });
    });
  approvals
    .command("show <approval-id>")
    .description("one approval: what will happen, why a person is asked, who has answered")
    .action(async (approvalId: string, _: unknown, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        print((await client.getApproval({ approvalId }, soon())).approval, globals.json);
      });
    });
  approvals
    .command("approve <approval-id>")
    .description("let exactly this call run")
    .option("--comment <text>", "for the record", "")
    .action(async (approvalId: string, options: { comment: string }, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        // What is approved is what was just read: a request that has changed in between is refused by its hash.
        const { approval } = await client.getApproval({ approvalId }, soon());
        const argumentsHash = approval?.argumentsHash ?? "";
        const response = await client.approve({ approvalId, argumentsHash, comment: options.comment }, soon());
        print(response.approval, globals.json);
      });
    });
  approvals
    .command("reject <approval-id>")
    .description("refuse this call")
    .option("--comment <text>", "why; the agent reads it", "")
    .action(async (approvalId: string, options: { comment: string }, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        print((await client.reject({ approvalId, comment: options.comment }, soon())).approval, globals.json);
      });
    });
}

function listText(approvals: readonly Approval[]): string {
  const rows = approvals.map((approval) => [
    approval.approvalId,
    approval.tool,
    approval.principal?.agent ?? "",
    approval.price.map(amountText).join(", "),
    timeLeft(approval),
    cut(approval.argumentsJson, 60),
  ]);
  return table([["APPROVAL", "TOOL", "AGENT", "PRICE", "LEFT", "ARGUMENTS"], ...rows]);
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function timeLeft(approval: Approval): string {
  if (approval.expireTime === undefined) return "";
  const minutes = Math.max(0, Math.round((timestampMs(approval.expireTime) - Date.now()) / 60_000));
  return minutes >= 120 ? `${Math.floor(minutes / 60)} h` : `${minutes} min`;
}

function print(approval: Approval | undefined, json: boolean): void {
  if (approval === undefined) throw new Error("the service answered without an approval");
  console.log(json ? messageJson(ApprovalSchema, approval) : approvalText(approval));
}

function approvalText(approval: Approval): string {
  const { principal } = approval;
  const forUser = principal?.user ? ` for ${principal.user}` : "";
  const rows = [
    ["approval", approval.approvalId],
    ["state", approvalWord(approval.state)],
    ["what", `${approval.tool}: ${approval.toolDescription}`],
    ["who", `agent ${principal?.agent}${forUser}, session ${principal?.session}`],
    ["arguments", JSON.stringify(JSON.parse(approval.argumentsJson), null, 2)],
    ...approval.reasons.map((reason) => ["why", reason]),
    ["price", approval.price.map(amountText).join(", ")],
    ["labels", approval.labels.join(", ")],
    ["needs", `${approval.quorum || 1} of ${approval.approverGroup || "any reviewer"}`],
    ["time left", timeLeft(approval)],
    ...approval.votes.map((vote) => [
      "vote",
      `${vote.reviewer} ${vote.approve ? "approved" : "rejected"}${vote.comment ? `: ${vote.comment}` : ""}`,
    ]),
  ];
  return rows
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${name?.padEnd(11)} ${indented(value ?? "", 12)}`)
    .join("\n");
}

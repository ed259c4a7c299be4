import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  type Approval,
  ApprovalsService,
  type Card,
  CreateLoginLinkResponseSchema,
  GetApprovalResponseSchema,
  type Grant,
  ListApprovalsResponseSchema,
  ListGrantsResponseSchema,
  SetAbsenceResponseSchema,
} from "../../proto/interlock/v1/approvals_pb.ts";
import { amountText } from "../shared/money.ts";
import type { Client } from "../shared/rpc/types.ts";
import { addStats } from "./approvals-stats.ts";
import { CliError } from "./exit.ts";
import { approvalWord, indented, messageJson, table } from "./print.ts";
import { type Globals, soon, withClient } from "./session.ts";

type Approvals = Client<typeof ApprovalsService>;

/** `approvals ...`: a reviewer's work from a terminal. */
export function addApprovals(program: Command): void {
  const approvals = program.command("approvals").description("answer the calls that wait for a person");
  addReading(approvals);
  addAnswers(approvals);
  addGrants(approvals);
  addPerson(approvals);
  addStats(approvals);
}

function addReading(approvals: Command): void {
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
      await withClient(command, ApprovalsService, "alice", (client, globals) => show(client, approvalId, globals));
    });
}

type ApproveFlags = { comment: string; arguments?: string; uses?: string; minutes?: string; upTo?: string[] };

function addAnswers(approvals: Command): void {
  approvals
    .command("approve <approval-id>")
    .description("let exactly this call run")
    .option("--comment <text>", "for the record", "")
    .option("--arguments <json>", "approve with these arguments instead; leave what is [masked] as it is")
    .option("--uses <n>", "approve so many more calls like it in this session, too")
    .option("--minutes <n>", "for so long (with --uses; default 15)")
    .option("--up-to <name=max...>", "numbers that may differ among them (with --uses)")
    .action(async (approvalId: string, flags: ApproveFlags, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        // What is approved is what was just read: a request that has changed in between is refused by its hash.
        const { approval } = await client.getApproval({ approvalId }, soon());
        const argumentsHash = approval?.edit?.argumentsHash ?? approval?.argumentsHash ?? "";
        const calls = 1 + (approval?.joined.length ?? 0);
        const { comment, arguments: edited = "" } = flags;
        const grant = grantOf(flags);
        const answer = { approvalId, argumentsHash, comment, calls, editedArgumentsJson: edited };
        await client.approve({ ...answer, ...(grant === undefined ? {} : { grant }) }, soon());
        await show(client, approvalId, globals);
      });
    });
  approvals
    .command("reject <approval-id>")
    .description("refuse this call")
    .option("--comment <text>", "why; the agent reads it", "")
    .action(async (approvalId: string, options: { comment: string }, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        await client.reject({ approvalId, comment: options.comment }, soon());
        await show(client, approvalId, globals);
      });
    });
  approvals
    .command("ask <approval-id> <question>")
    .description("ask the agent something before you answer")
    .action(async (approvalId: string, text: string, _: unknown, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        await client.askBack({ approvalId, text }, soon());
        await show(client, approvalId, globals);
      });
    });
}

function grantOf({ uses, minutes, upTo = [] }: ApproveFlags) {
  if (uses === undefined) {
    if (minutes === undefined && upTo.length === 0) return undefined;
    throw new CliError("--minutes and --up-to go with --uses <n>.");
  }
  const bounds = upTo.map((text) => {
    const [argument = "", max = ""] = text.split("=");
    if (argument === "" || !/^-?\d+(\.\d+)?$/.test(max)) throw new CliError(`--up-to ${text}: write name=number.`);
    return { argument, max: Number(max) };
  });
  const seconds = BigInt(Math.round(wholeOr(minutes ?? "15", "--minutes") * 60));
  return { uses: wholeOr(uses, "--uses"), duration: { seconds, nanos: 0 }, bounds };
}

function wholeOr(text: string, flag: string): number {
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw new CliError(`${flag} ${text}: give a whole number.`);
}

function addGrants(approvals: Command): void {
  const print = (grants: readonly Grant[], response: Parameters<typeof messageJson>[1], { json }: Globals): void => {
    if (json) console.log(messageJson(ListGrantsResponseSchema, response as never));
    else console.log(grants.length === 0 ? "No grants." : grantsText(grants));
  };
  approvals
    .command("grants")
    .description("yeses given beforehand, the newest first")
    .action(async (_: unknown, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        const response = await client.listGrants({}, soon());
        print(response.grants, response, globals);
      });
    });
  approvals
    .command("revoke <grant-id>")
    .description("take such a yes back: the next call asks again")
    .action(async (grantId: string, _: unknown, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, globals) => {
        const response = await client.revokeGrant({ grantId }, soon());
        print(response.grants, response, globals);
      });
    });
}

function addPerson(approvals: Command): void {
  approvals
    .command("open [approval-id]")
    .description("a link that logs you in to the reviewers' page, once")
    .action(async (approvalId: string | undefined, _: unknown, command: Command) => {
      await withClient(command, ApprovalsService, "alice", async (client, { json }) => {
        const response = await client.createLoginLink({ approvalId: approvalId ?? "" }, soon());
        console.log(json ? messageJson(CreateLoginLinkResponseSchema, response) : response.url);
      });
    });
  approvals
    .command("away <days>")
    .description("say that you are away; 0 when you are back")
    .option("--stand-in <name>", "who answers in your place meanwhile", "")
    .action(async (days: string, { standIn }: { standIn: string }, command: Command) => {
      if (!/^\d{1,2}(\.\d+)?$/.test(days)) throw new CliError(`away ${days}: give a number of days, 0 to 90.`);
      await withClient(command, ApprovalsService, "alice", async (client, { json }) => {
        const until = timestampFromMs(Date.now() + Math.round(Number(days) * 86_400_000));
        const response = await client.setAbsence({ until, standIn }, soon());
        if (json) return console.log(messageJson(SetAbsenceResponseSchema, response));
        const rows = response.absences.map((one) => [one.reviewer, dateOf(one.until), one.standIn]);
        console.log(rows.length === 0 ? "Nobody is away." : table([["AWAY", "UNTIL", "STAND-IN"], ...rows]));
      });
    });
}

async function show(client: Approvals, approvalId: string, { json }: Globals): Promise<void> {
  const response = await client.getApproval({ approvalId }, soon());
  const { approval, card } = response;
  if (approval === undefined || card === undefined) throw new Error("the service answered without an approval");
  console.log(json ? messageJson(GetApprovalResponseSchema, response) : cardText(approval, card));
}

/** The card, as everywhere, on a terminal. */
function cardText(approval: Approval, card: Card): string {
  const rows: [string, string][] = [
    ["approval", approval.approvalId],
    ["state", approvalWord(approval.state)],
    ["what", card.sentence],
    ["tool", `${approval.tool}: ${approval.toolDescription}`],
    ...card.warnings.map((warning): [string, string] => ["look twice", warning]),
    ...card.lines.map(({ label, text, quoted, folded }): [string, string] => [
      label,
      `${quoted ? `“${text}”` : text}${folded > 0 ? ` … ${folded} more characters (--json shows all)` : ""}`,
    ]),
    ["risk", card.risk],
    ["time left", timeLeft(approval)],
  ];
  const width = Math.max(...rows.map(([label]) => label.length));
  return rows.map(([label, text]) => `${indented(label, 0).padEnd(width)}  ${indented(text, width + 2)}`).join("\n");
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

function grantsText(grants: readonly Grant[]): string {
  const rows = grants.map(({ grantId, tool, principal, reviewer, used, uses, expireTime, revokedBy, bounds }) => [
    ...[grantId, tool, principal?.agent ?? "", reviewer, `${used}/${uses}`, dateOf(expireTime)],
    revokedBy === ""
      ? bounds.map(({ argument, max }) => `${argument} <= ${max}`).join(", ")
      : `revoked by ${revokedBy}`,
  ]);
  return table([["GRANT", "TOOL", "AGENT", "BY", "USED", "UNTIL", ""], ...rows]);
}

function dateOf(time: Grant["expireTime"]): string {
  return time === undefined ? "" : new Date(timestampMs(time)).toISOString().slice(0, 16).replace("T", " ");
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

function timeLeft(approval: Approval): string {
  if (approval.expireTime === undefined) return "";
  const minutes = Math.max(0, Math.round((timestampMs(approval.expireTime) - Date.now()) / 60_000));
  return minutes >= 120 ? `${Math.floor(minutes / 60)} h` : `${minutes} min`;
}

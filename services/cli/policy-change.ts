import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline/promises";
import type { Command } from "commander";
import {
  ApproveChangeResponseSchema,
  type Candidate,
  GetShadowResponseSchema,
  ListRevisionsResponseSchema,
  PdpService,
  PushPolicyResponseSchema,
  RejectChangeResponseSchema,
  RollbackPolicyResponseSchema,
  SetShadowResponseSchema,
  type Standing,
  StandingState,
} from "../../proto/interlock/v1/pdp_pb.ts";
import type { Client } from "../shared/rpc/types.ts";
import { CliError, EXIT, mendable } from "./exit.ts";
import { candidateText, logText, replayedText, standingText } from "./policy-print.ts";
import { jsonLine, messageJson, printable } from "./print.ts";
import { type Globals, withClient } from "./session.ts";

/** `policy push|rollback|log|show|diff|approve|reject|shadow`: the policy changed, and its history. */
export function addPolicyChange(policy: Command): void {
  addPush(policy);
  addRollback(policy);
  addHistory(policy);
  addFourEyes(policy);
  addShadow(policy);
}

type Pdp = Client<typeof PdpService>;

/** A large policy takes a while to check. */
const patiently = () => ({ deadlineMs: Date.now() + 60_000 });

const as = <T>(command: Command, use: (client: Pdp, globals: Globals) => Promise<T>): Promise<T> =>
  withClient(command, PdpService, "operator", use);

/** Read as the services would, so that what is wrong is said before anything is sent. @throws FileProblems, CliError */
export async function packDirectory(dir: string): Promise<Uint8Array> {
  const [{ loadPolicy }, { packBundle }] = await Promise.all([import("../pdp/load.ts"), import("../pdp/bundle.ts")]);
  const { bundle } = await loadPolicy(dir);
  return await mendable(EXIT.usage, () => packBundle(bundle));
}

type PushFlags = { reason: string; yes?: boolean; dryRun?: boolean };

function addPush(policy: Command): void {
  policy
    .command("push [dir]")
    .description("check, test and replay a directory's rules, show what they would change, and make them live")
    .requiredOption("--reason <text>", "why; kept in the record")
    .option("-y, --yes", "do not ask")
    .option("--dry-run", "show, and change nothing")
    .action(async (dir: string | undefined, flags: PushFlags, command: Command) => {
      const folder = dir ?? "policies";
      if (flags.yes !== true && flags.dryRun !== true && !process.stdin.isTTY) {
        throw new CliError("there is nobody to ask here: add --yes to make it live without asking, or --dry-run.");
      }
      const bundle = await packDirectory(folder);
      await as(command, async (client, globals) => {
        const { reason } = flags;
        const looked = await client.pushPolicy({ bundle, reason, dryRun: true }, patiently());
        const { candidate } = looked;
        if (candidate === undefined) throw new Error("a dry run came back without its candidate");
        if (!globals.json) console.log(candidateText(candidate, folder));
        const failure = failureOf(candidate);
        if (failure !== undefined || flags.dryRun === true) {
          if (globals.json) console.log(messageJson(PushPolicyResponseSchema, looked));
          if (failure !== undefined) throw failure;
          return;
        }
        if (flags.yes !== true && !(await confirmed("Make it live?")))
          throw new CliError("nothing was changed.", EXIT.refused);
        const change = { changeId: randomUUID(), baseRevision: candidate.baseRevision };
        const pushed = await client.pushPolicy({ bundle, reason, ...change }, patiently());
        if (globals.json) console.log(messageJson(PushPolicyResponseSchema, pushed));
        report(pushed.standing, globals);
      });
    });
}

/** What keeps a candidate from going live, as the shell is told. */
function failureOf({ findings, failedTests }: Candidate): CliError | undefined {
  const errors = findings.filter(({ warning }) => !warning).length;
  if (errors > 0)
    return new CliError(
      `the policy has ${errors} ${errors === 1 ? "error" : "errors"}; nothing was changed.`,
      EXIT.usage,
    );
  if (failedTests.length > 0)
    return new CliError(`${failedTests.length} table tests fail; nothing was changed.`, EXIT.failed);
  return undefined;
}

async function confirmed(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} [y/N] `)).trim());
  } finally {
    terminal.close();
  }
}

function report(standing: Standing | undefined, { json }: Globals): void {
  if (!json) console.log(printable(standingText(standing)));
  if (standing?.state === StandingState.WAITING) process.exitCode = EXIT.pending;
}

function wholeNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new CliError("Give the number of a revision, as interlock policy log shows it.");
}

function addRollback(policy: Command): void {
  policy
    .command("rollback [number]")
    .description("make an earlier revision live again; without a number the one before")
    .requiredOption("--reason <text>", "why; kept in the record")
    .action(async (text: string | undefined, flags: { reason: string }, command: Command) => {
      const number = text === undefined ? {} : { number: wholeNumber(text) };
      await as(command, async (client, globals) => {
        const request = { ...number, reason: flags.reason, changeId: randomUUID() };
        const response = await client.rollbackPolicy(request, patiently());
        if (globals.json) console.log(messageJson(RollbackPolicyResponseSchema, response));
        report(response.standing, globals);
      });
    });
}

function addHistory(policy: Command): void {
  policy
    .command("log")
    .description("every revision (* is active, ~ is the shadow), and the changes that wait")
    .action(async (_: unknown, command: Command) => {
      await as(command, async (client, { json }) => {
        const response = await client.listRevisions({}, patiently());
        console.log(json ? messageJson(ListRevisionsResponseSchema, response) : logText(response));
      });
    });
  policy
    .command("show [number]")
    .description("the files of a revision; without a number of the active one")
    .action(async (text: string | undefined, _: unknown, command: Command) => {
      const number = text === undefined ? {} : { number: wholeNumber(text) };
      await as(command, async (client, { json }) => {
        const files = await filesOf(client, number);
        if (json) console.log(jsonLine(Object.fromEntries(files)));
        else for (const [name, content] of files) console.log(printable(`# ${name}\n${content}`));
      });
    });
  policy
    .command("diff <from> [to]")
    .description("what changed between two revisions, by number; without the second up to the active one")
    .action(async (from: string, to: string | undefined, _: unknown, command: Command) => {
      const [first, second] = [{ number: wholeNumber(from) }, to === undefined ? {} : { number: wholeNumber(to) }];
      await as(command, async (client, { json }) => {
        const [before, after] = [await filesOf(client, first), await filesOf(client, second)];
        const { diffLines } = await import("../pdp/change.ts");
        const diff = await diffLines(before, after);
        if (json) console.log(jsonLine(diff));
        else console.log(diff.lines.length === 0 ? "They say the same." : printable(diff.lines.join("\n")));
      });
    });
}

async function filesOf(client: Pdp, which: { number?: number }): Promise<ReadonlyMap<string, string>> {
  const { unpackBundle } = await import("../pdp/bundle.ts");
  return await unpackBundle((await client.getPolicy(which, patiently())).bundle);
}

function addFourEyes(policy: Command): void {
  policy
    .command("approve <change-id>")
    .description("the second pair of eyes: let a change that waits go live")
    .action(async (changeId: string, _: unknown, command: Command) => {
      await as(command, async (client, globals) => {
        const response = await client.approveChange({ changeId }, patiently());
        if (globals.json) console.log(messageJson(ApproveChangeResponseSchema, response));
        report(response.standing, globals);
      });
    });
  policy
    .command("reject <change-id>")
    .description("end a change that waits; its author may withdraw it so")
    .requiredOption("--reason <text>", "why; kept in the record")
    .action(async (changeId: string, flags: { reason: string }, command: Command) => {
      await as(command, async (client, globals) => {
        const response = await client.rejectChange({ changeId, reason: flags.reason }, patiently());
        if (globals.json) console.log(messageJson(RejectChangeResponseSchema, response));
        report(response.standing, globals);
      });
    });
}

function addShadow(policy: Command): void {
  const shadow = policy
    .command("shadow")
    .description("have a candidate decide beside the active rules, without effect");
  shadow
    .command("start [dir]")
    .description("from now on decide every call by a directory's rules too")
    .requiredOption("--reason <text>", "why; kept in the record")
    .action(async (dir: string | undefined, flags: { reason: string }, command: Command) => {
      const bundle = await packDirectory(dir ?? "policies");
      await as(command, async (client, { json }) => {
        const response = await client.setShadow({ bundle, reason: flags.reason }, patiently());
        console.log(
          json
            ? messageJson(SetShadowResponseSchema, response)
            : `Shadow: ${response.revision.slice(0, 12)}. See: interlock policy shadow report`,
        );
      });
    });
  shadow
    .command("report")
    .description("what it would have decided otherwise, as the replica that answers has seen")
    .action(async (_: unknown, command: Command) => {
      await as(command, async (client, { json }) => {
        const response = await client.getShadow({}, patiently());
        if (json) console.log(messageJson(GetShadowResponseSchema, response));
        else console.log(response.replayed === undefined ? "There is no shadow." : replayedText(response.replayed));
      });
    });
  shadow
    .command("stop")
    .description("end it")
    .requiredOption("--reason <text>", "why; kept in the record")
    .action(async (flags: { reason: string }, command: Command) => {
      await as(command, async (client, { json }) => {
        const response = await client.setShadow({ reason: flags.reason }, patiently());
        console.log(json ? messageJson(SetShadowResponseSchema, response) : "There is no shadow any more.");
      });
    });
}

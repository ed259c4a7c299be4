import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  BrokerService,
  type Call,
  CallSchema,
  CallState,
  ListToolsResponseSchema,
  WatchResponseSchema,
} from "../../proto/interlock/v1/broker_pb.ts";
import { amountText } from "../shared/money.ts";
import { CliError, EXIT } from "./exit.ts";
import { callText, impactWord, messageJson, printable, table } from "./print.ts";
import { soon, withClient } from "./session.ts";

/** `call`, `watch`, `get`, `cancel`, `tools`: what an agent can do, by hand. */
export function addCall(program: Command): void {
  program
    .command("call <tool> [arguments]")
    .description("run one tool call; arguments are a JSON object, @file, or - for standard input")
    .option("--session <name>", "the agent run it belongs to (default: a new one)")
    .option("--key <text>", "idempotency key: the same key and arguments give the first outcome")
    .option("--user <name>", "the person it is done for")
    .option("--wait <seconds>", "how long to wait for a person", seconds)
    .action(async (tool: string, args: string | undefined, options: CallFlags, command: Command) => {
      await withClient(command, BrokerService, "demo-agent", async (client, globals) => {
        const { call } = await client.execute({
          session: options.session ?? `cli-${randomBytes(4).toString("hex")}`,
          tool,
          argumentsJson: readArguments(args),
          idempotencyKey: options.key ?? "",
          user: options.user ?? "",
          ...(options.wait === undefined ? {} : { wait: durationFromMs(options.wait * 1000) }),
        });
        report(call, globals.json);
      });
    });
  program
    .command("get <session/call-id>")
    .description("show one call as it stands")
    .action(async (ref: string, _: unknown, command: Command) => {
      await withClient(command, BrokerService, "demo-agent", async (client, globals) => {
        report((await client.get({ ref: parseRef(ref) }, soon())).call, globals.json);
      });
    });
  program
    .command("watch <session/call-id>")
    .description("follow one call until it ends")
    .action(async (ref: string, _: unknown, command: Command) => {
      await withClient(command, BrokerService, "demo-agent", async (client, globals) => {
        let last: Call | undefined;
        for await (const response of client.watch({ ref: parseRef(ref) })) {
          if (response.kind.case === "call") last = response.kind.value;
          if (globals.json) console.log(messageJson(WatchResponseSchema, response));
          else if (response.kind.case === "event") printEvent(response.kind.value.kind);
        }
        if (globals.json) process.exitCode = exitOf(last);
        else report(last, false);
      });
    });
  program
    .command("cancel <session/call-id>")
    .description("end a call that waits or runs")
    .option("--reason <text>", "why", "cancelled from the command line")
    .action(async (ref: string, options: { reason: string }, command: Command) => {
      await withClient(command, BrokerService, "demo-agent", async (client, globals) => {
        const { call } = await client.cancel({ ref: parseRef(ref), reason: options.reason }, soon());
        report(call, globals.json);
        process.exitCode = EXIT.ok;
      });
    });
  program
    .command("tools")
    .description("list the tools you could be allowed to call")
    .option(
      "--types-for <tool>",
      "declare, as TypeScript, the tools that programs of this one may call (e.g. code.run)",
    )
    .action(async ({ typesFor = "" }: { typesFor?: string }, command: Command) => {
      await withClient(command, BrokerService, "demo-agent", async (client, globals) => {
        const response = await client.listTools({ typesFor }, soon());
        if (typesFor !== "" && !globals.json) {
          console.log(response.types.trimEnd());
          return;
        }
        if (globals.json) {
          console.log(messageJson(ListToolsResponseSchema, response));
          return;
        }
        const rows = response.tools.map((tool) => [
          `${tool.facts?.name}`,
          impactWord(tool.facts?.impact ?? 0),
          tool.needsApproval ? "needs approval" : "",
          tool.price.map(amountText).join(", "),
          tool.description,
        ]);
        console.log(table([["TOOL", "IMPACT", "PEOPLE", "PRICE", "WHAT IT DOES"], ...rows]));
      });
    });
}

type CallFlags = { session?: string; key?: string; user?: string; wait?: number };

function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 86_400)) throw new CliError(`--wait ${text}: give seconds from 0 to 86400.`);
  return value;
}

export function readArguments(given: string | undefined): string {
  if (given === undefined) return "{}";
  try {
    if (given === "-") return readFileSync(0, "utf8");
    if (given.startsWith("@")) return readFileSync(given.slice(1), "utf8");
  } catch (error) {
    throw new CliError(`the arguments cannot be read: ${error instanceof Error ? error.message : error}`);
  }
  return given;
}

export function parseRef(text: string): { session: string; callId: string } {
  const [session, callId, ...rest] = text.split("/");
  if (session === undefined || callId === undefined || rest.length > 0) {
    throw new CliError(`"${text}" names no call: write <session>/<call-id>, as \`call\` prints it.`);
  }
  return { session, callId };
}

function report(call: Call | undefined, json: boolean): void {
  if (call === undefined) throw new Error("the broker answered without a call");
  console.log(json ? messageJson(CallSchema, call) : callText(call));
  process.exitCode = exitOf(call);
  if (!json && call.state === CallState.PENDING_APPROVAL) {
    console.log(`\nIt waits for a person. Follow it: interlock watch ${call.ref?.session}/${call.ref?.callId}`);
  }
}

function exitOf(call: Call | undefined): number {
  switch (call?.state) {
    case CallState.SUCCEEDED:
      return EXIT.ok;
    case CallState.PENDING_APPROVAL:
    case CallState.RUNNING:
      return EXIT.pending;
    case CallState.REFUSED:
      return EXIT.refused;
    case CallState.FAILED:
    case CallState.CANCELLED:
    case CallState.OUTCOME_UNKNOWN:
      return EXIT.failed;
    case CallState.UNSPECIFIED:
    case undefined:
      break;
  }
  return EXIT.internal; // a state that this build does not know
}

type EventKind =
  | { case: "stage"; value: { stage: string; note: string } }
  | { case: "output"; value: { text: string } };

function printEvent(kind: EventKind | { case: undefined }): void {
  if (kind.case === "stage") console.log(`${kind.value.stage.padEnd(13)} ${printable(kind.value.note)}`);
  if (kind.case === "output") process.stdout.write(printable(kind.value.text));
}

import { readFileSync } from "node:fs";
import { fromJsonString, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate, timestampNow } from "@bufbuild/protobuf/wkt";
import { type Command, Option } from "commander";
import { BrokerService } from "../../proto/interlock/v1/broker_pb.ts";
import {
  type ExplainResponse,
  ExplainResponseSchema,
  PdpService,
  ReplayResponseSchema,
  SimulateResponseSchema,
  WhatCanResponseSchema,
  WhoCanResponseSchema,
} from "../../proto/interlock/v1/pdp_pb.ts";
import { type Decision, type Facts, FactsSchema, Impact, LoopVerdict } from "../../proto/interlock/v1/types_pb.ts";
import { readArguments } from "./call.ts";
import { CliError } from "./exit.ts";
import { packDirectory } from "./policy-change.ts";
import { kindWord, possibilitiesText, replayedText } from "./policy-print.ts";
import { messageJson, printable } from "./print.ts";
import { soon, withClient } from "./session.ts";

/** `policy explain|simulate|who-can|what-can|replay`: the rules, understood. Nothing here changes or calls anything. */
export function addPolicyAsk(policy: Command): void {
  addExplain(policy);
  addSimulate(policy);
  addPossible(policy);
  addReplay(policy);
}

type FactFlags = {
  agent?: string;
  user?: string;
  session: string;
  label: string[];
  loop: "clear" | "repeating" | "stopped";
  time?: string;
  chain: string[];
  spentUsdMicros?: string;
};

/** The facts of a call that might be made. */
function withFacts(command: Command): Command {
  const gather = (value: string, before: string[]) => [...before, value];
  return command
    .option("--agent <name>", "the agent that asks")
    .option("--user <name>", "the person it acts for; or, without --agent, who acts themself")
    .option("--session <name>", "the agent run", "policy-what-if")
    .option("--label <label>", "what the session has touched; may be given several times", gather, [])
    .addOption(
      new Option("--loop <verdict>", "what the loop check says")
        .choices(["clear", "repeating", "stopped"])
        .default("clear"),
    )
    .option("--chain <tool>", "a call that it is nested in, nearest first; may be given several times", gather, [])
    .option("--spent-usd-micros <n>", "what the session has been charged so far")
    .option("--time <time>", "when, as 2026-03-04T22:30:00Z (default: now)");
}

type FactsInit = MessageInitShape<typeof FactsSchema>;

async function factsOf(command: Command, tool: string, args: string | undefined, flags: FactFlags): Promise<FactsInit> {
  const { agent = "", user = "", session, label, loop, time, chain, spentUsdMicros } = flags;
  if (agent === "" && user === "") throw new CliError("say who asks: --agent <name>, or --user <name>.");
  const when = time === undefined ? undefined : new Date(time);
  if (when !== undefined && Number.isNaN(when.getTime()))
    throw new CliError(`--time ${time}: write a time such as 2026-03-04T22:30:00Z.`);
  if (spentUsdMicros !== undefined && !/^\d{1,15}$/.test(spentUsdMicros))
    throw new CliError("--spent-usd-micros: give a whole number.");
  return {
    principal: { tenant: "", agent, session, user },
    tool: await toolFacts(command, tool),
    argumentsJson: readArguments(args),
    labels: label,
    loop: { clear: LoopVerdict.CLEAR, repeating: LoopVerdict.REPEATING, stopped: LoopVerdict.STOPPED }[loop],
    time: when === undefined ? timestampNow() : timestampFromDate(when),
    ancestors: chain.map((name) => ({ tool: name })),
    spent: spentUsdMicros === undefined ? [] : [{ unit: "usd_micros", value: BigInt(spentUsdMicros) }],
  };
}

async function toolFacts(command: Command, name: string): Promise<NonNullable<FactsInit["tool"]>> {
  if (name.startsWith("policy."))
    return { name, version: "1.0.0", impact: Impact.HIGH, effects: ["writes"], groups: ["policy"] };
  return await withClient(command, BrokerService, "operator", async (client) => {
    const { tools } = await client.listTools({}, soon());
    const found = tools.find(({ facts }) => facts?.name === name)?.facts;
    if (found !== undefined) return found;
    throw new CliError(`there is no tool "${name}"; interlock tools --as operator lists them.`);
  });
}

function addExplain(policy: Command): void {
  withFacts(policy.command("explain <tool> [arguments]"))
    .description("why a call would be decided as it would, and what it would take")
    .action(async (tool: string, args: string | undefined, flags: FactFlags, command: Command) => {
      const facts = await factsOf(command, tool, args, flags);
      await withClient(command, PdpService, "operator", async (client, { json }) => {
        const response = await client.explain({ facts }, soon());
        console.log(json ? messageJson(ExplainResponseSchema, response) : explanationText(response));
      });
    });
}

function explanationText({ sentences, nearMisses, decision }: ExplainResponse): string {
  const lines = [...sentences];
  if (nearMisses.length > 0) lines.push("", "Rules that did not match, and what they would have needed:");
  for (const { rule, outcome, missing } of nearMisses) {
    lines.push(`  ${rule} (${kindWord(outcome)})`, ...missing.map((sentence) => `    ${sentence}`));
  }
  lines.push("", `Revision ${decision?.revision.slice(0, 12)}.`);
  return printable(lines.join("\n"));
}

function addSimulate(policy: Command): void {
  withFacts(policy.command("simulate <tool> [arguments]"))
    .description("what if: one call, decided by the active rules and by a directory's")
    .option("--policies <dir>", "rules that are not live")
    .action(
      async (tool: string, args: string | undefined, flags: FactFlags & { policies?: string }, command: Command) => {
        const facts = await factsOf(command, tool, args, flags);
        const bundle = flags.policies === undefined ? new Uint8Array() : await packDirectory(flags.policies);
        await withClient(command, PdpService, "operator", async (client, { json }) => {
          const response = await client.simulate({ facts, bundle }, soon());
          if (json) console.log(messageJson(SimulateResponseSchema, response));
          else {
            console.log(decisionText("active", response.active));
            if (response.candidate !== undefined) console.log(decisionText("candidate", response.candidate));
          }
        });
      },
    );
}

function decisionText(name: string, decision: Decision | undefined): string {
  if (decision === undefined) return `${name}: no decision`;
  const { kind, reasons, matchedRules, revision } = decision;
  const rules = matchedRules.length === 0 ? "no rule" : matchedRules.join(", ");
  return printable(
    `${name.padEnd(10)} ${kindWord(kind)} (${rules}; revision ${revision.slice(0, 12)})\n           ${reasons.join("\n           ")}`,
  );
}

function addPossible(policy: Command): void {
  policy
    .command("who-can <tool>")
    .description("who could call a tool, and what it depends on")
    .action(async (tool: string, _: unknown, command: Command) => {
      await withClient(command, PdpService, "operator", async (client, { json }) => {
        const response = await client.whoCan({ tool }, soon());
        console.log(json ? messageJson(WhoCanResponseSchema, response) : possibilitiesText(response.who, "subject"));
      });
    });
  policy
    .command("what-can <subject>")
    .description("what agent:<name> or user:<name> could call, and what it depends on")
    .action(async (subject: string, _: unknown, command: Command) => {
      const named = subject.includes(":") ? subject : `agent:${subject}`;
      await withClient(command, PdpService, "operator", async (client, { json }) => {
        const response = await client.whatCan({ subject: named }, soon());
        console.log(json ? messageJson(WhatCanResponseSchema, response) : possibilitiesText(response.what, "tool"));
      });
    });
}

function addReplay(policy: Command): void {
  policy
    .command("replay [dir]")
    .description("decide recent calls again by a directory's rules, and list every decision that would change")
    .option("--facts <file>", "calls to decide instead: one interlock.v1.Facts in JSON a line")
    .action(async (dir: string | undefined, flags: { facts?: string }, command: Command) => {
      const bundle = await packDirectory(dir ?? "policies");
      const facts = flags.facts === undefined ? [] : readFacts(flags.facts);
      await withClient(command, PdpService, "operator", async (client, { json }) => {
        const response = await client.replay({ bundle, facts }, { deadlineMs: Date.now() + 60_000 });
        if (json) console.log(messageJson(ReplayResponseSchema, response));
        else if (response.replayed !== undefined) console.log(replayedText(response.replayed));
      });
    });
}

/** @throws CliError naming the line. */
function readFacts(file: string): Facts[] {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new CliError(`${file} cannot be read (${(error as NodeJS.ErrnoException).code}).`);
  }
  return text.split("\n").flatMap((line, i) => {
    if (line.trim() === "") return [];
    try {
      return [fromJsonString(FactsSchema, line)];
    } catch (error) {
      throw new CliError(
        `${file}:${i + 1}: it is no interlock.v1.Facts in JSON: ${error instanceof Error ? error.message : error}`,
      );
    }
  });
}

import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { BrokerService, type KillSwitch, ListKillSwitchesResponseSchema } from "../../proto/interlock/v1/broker_pb.ts";
import { messageJson, table } from "./print.ts";
import { soon, withClient } from "./session.ts";

/** `kill`: the switch that stops everything. */
export function addOperate(program: Command): void {
  const kill = program.command("kill").description("stop new calls at once, everywhere or for one scope");
  kill
    .command("on [scope]")
    .description("scope: everything (default), tenant:<t>, agent:<a>, session:<s> or tool:<name>")
    .requiredOption("--reason <text>", "why; callers and the journal are told")
    .action(async (scope: string | undefined, options: { reason: string }, command: Command) => {
      await setSwitch(command, { scope: scope ?? "everything", on: true, reason: options.reason });
    });
  kill
    .command("off [scope]")
    .description("let calls through again")
    .option("--reason <text>", "why", "")
    .action(async (scope: string | undefined, options: { reason: string }, command: Command) => {
      await setSwitch(command, { scope: scope ?? "everything", on: false, reason: options.reason });
    });
  kill
    .command("list")
    .description("the switches that are on")
    .action(async (_: unknown, command: Command) => {
      await withClient(command, BrokerService, "operator", async (client, globals) => {
        const response = await client.listKillSwitches({}, soon());
        printSwitches(response.active, globals.json);
      });
    });
}

type SwitchChange = { scope: string; on: boolean; reason: string };

async function setSwitch(command: Command, change: SwitchChange): Promise<void> {
  await withClient(command, BrokerService, "operator", async (client, globals) => {
    const response = await client.setKillSwitch(change, soon());
    printSwitches(response.active, globals.json);
  });
}

function printSwitches(active: KillSwitch[], json: boolean): void {
  if (json) {
    const schema = ListKillSwitchesResponseSchema;
    console.log(messageJson(schema, { $typeName: schema.typeName, active }));
  } else if (active.length === 0) console.log("No kill switch is on.");
  else console.log(table([["SCOPE", "SINCE", "AUTHOR", "REASON"], ...active.map(switchRow)]));
}

function switchRow(item: KillSwitch): string[] {
  const since = item.time === undefined ? "" : timestampDate(item.time).toISOString();
  return [item.scope, since, item.author, item.reason];
}

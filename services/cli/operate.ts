import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { BrokerService, type KillSwitch, ListKillSwitchesResponseSchema } from "../../proto/interlock/v1/broker_pb.ts";
import { type Budget, LedgerService, ListBudgetsResponseSchema } from "../../proto/interlock/v1/ledger_pb.ts";
import { messageJson, quantity, table } from "./print.ts";
import { soon, withClient } from "./session.ts";

/** `budgets` and `kill`: an operator's view of money, and the switch that stops everything. */
export function addOperate(program: Command): void {
  program
    .command("budgets")
    .description("what every budget has left")
    .action(async (_: unknown, command: Command) => {
      await withClient(command, LedgerService, "operator", async (client, globals) => {
        const response = await client.listBudgets({}, soon());
        if (globals.json) console.log(messageJson(ListBudgetsResponseSchema, response));
        else console.log(budgetsText(response.budgets));
      });
    });
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

function budgetsText(budgets: readonly Budget[]): string {
  if (budgets.length === 0) return "No budgets are set: nothing is limited.";
  const rows = budgets.map((budget) => [
    budget.name,
    `${budget.scope} ${budget.subject}`,
    bar(budget),
    quantity(budget.unit, budget.available),
    quantity(budget.unit, budget.held),
    quantity(budget.unit, budget.spent),
    quantity(budget.unit, budget.limit),
    budget.unit === "usd_micros" ? "usd" : budget.unit,
  ]);
  return table([["BUDGET", "SCOPE", "USED", "AVAILABLE", "HELD", "SPENT", "LIMIT", "UNIT"], ...rows]);
}

/** Ten cells of what is spent (#) and held (+). */
function bar(budget: Budget): string {
  const cells = (value: bigint): number =>
    budget.limit > 0n ? Math.min(10, Number((value * 10n + budget.limit - 1n) / budget.limit)) : 10;
  const spent = cells(budget.spent);
  const used = Math.max(spent, cells(budget.spent + budget.held));
  return `[${"#".repeat(spent)}${"+".repeat(used - spent)}${".".repeat(10 - used)}]`;
}

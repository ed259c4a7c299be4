import { readFileSync } from "node:fs";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { v7 as uuidv7 } from "uuid";
import {
  ApplyBudgetsResponseSchema,
  type Authorship,
  FreezeBudgetResponseSchema,
  GetStatementResponseSchema,
  GrantBudgetResponseSchema,
  LedgerService,
  ListBudgetsResponseSchema,
  RaiseBudgetResponseSchema,
  ThawBudgetResponseSchema,
  WatchSignalsResponseSchema,
} from "../../proto/interlock/v1/ledger_pb.ts";
import { budgetsText, signalText, statementCsv, statementText } from "./budgets-print.ts";
import { CliError } from "./exit.ts";
import { messageJson, table } from "./print.ts";
import { soon, withClient } from "./session.ts";

/** `budgets`: how they stand, what was spent, and what an operator changes. */
export function addBudgets(program: Command): void {
  const budgets = program
    .command("budgets")
    .description("what every budget has left; its subcommands read and change them")
    .action(async (_: unknown, command: Command) => {
      await withClient(command, LedgerService, "operator", async (client, globals) => {
        const response = await client.listBudgets({}, soon());
        if (globals.json) console.log(messageJson(ListBudgetsResponseSchema, response));
        else console.log(budgetsText(response.budgets, response.frozen));
      });
    });
  addReading(budgets);
  addOrders(budgets);
  addRevisions(budgets);
}

type StatementFlags = { by?: string; from?: string; to?: string; unit?: string; csv?: boolean; count?: string };

function addReading(budgets: Command): void {
  budgets
    .command("statement")
    .description("what was spent, beside what was estimated")
    .option("--by <list>", "of day, agent, user and tool, separated by commas", "day")
    .option("--from <day>", "first day, as 2026-11-24, UTC")
    .option("--to <day>", "last day")
    .option("--unit <unit>", "only this unit")
    .option("--csv", "as CSV; amounts in whole units")
    .action(async (flags: StatementFlags, command: Command) => await statement(flags, command, 0));
  budgets
    .command("top")
    .description("who or what spent most")
    .option("--by <what>", "agent, user, tool or day", "agent")
    .option("--unit <unit>", "of which unit", "usd_micros")
    .option("--from <day>", "first day, as 2026-11-24, UTC")
    .option("--to <day>", "last day")
    .option("-n, --count <number>", "how many", "10")
    .option("--csv", "as CSV; amounts in whole units")
    .action(async (flags: StatementFlags, command: Command) => {
      const count = Number(flags.count);
      if (!Number.isInteger(count) || count < 1) throw new CliError("--count is a whole number of at least 1.");
      await statement(flags, command, count);
    });
  budgets
    .command("watch")
    .description("thresholds, overruns, forecasts and anomalies, as they come")
    .option("--from-start", "those of the past first")
    .action(async (flags: { fromStart?: boolean }, command: Command) => {
      await withClient(command, LedgerService, "operator", async (client, globals) => {
        for await (const signal of client.watchSignals({ onlyNew: flags.fromStart !== true }, {})) {
          console.log(globals.json ? messageJson(WatchSignalsResponseSchema, signal) : signalText(signal));
        }
      });
    });
}

async function statement(flags: StatementFlags, command: Command, top: number): Promise<void> {
  const by = (flags.by ?? "").split(",").filter((part) => part !== "");
  const { from = "", to = "", unit = "" } = flags;
  await withClient(command, LedgerService, "operator", async (client, globals) => {
    const response = await client.getStatement({ by, from, to, unit, top }, soon());
    if (globals.json) console.log(messageJson(GetStatementResponseSchema, response));
    else if (flags.csv === true) console.log(statementCsv(by, response.lines));
    else console.log(statementText(by, response.lines));
  });
}

type OrderFlags = { reason: string; subject?: string; key?: string };

/** Each may be sent again with the same key and is carried out once. */
function addOrders(budgets: Command): void {
  const order = (name: string, description: string) =>
    budgets
      .command(name)
      .description(description)
      .requiredOption("--reason <text>", "why; it is for the record")
      .option("--key <name>", "a name for this request, so that it can be repeated without being done twice");
  order("raise <budget> <limit>", "set another limit, until the file says something new of that budget")
    .option("--subject <name>", "only for this one; default: for all of the budget's")
    .action(async (budget: string, limit: string, flags: OrderFlags, command: Command) => {
      await withClient(command, LedgerService, "operator", async (client, { json }) => {
        const of = { ...requestOf(flags), budget, subject: flags.subject ?? "", limit: wholeOf("limit", limit) };
        const response = await client.raiseBudget(of, soon());
        done(json, messageJson(RaiseBudgetResponseSchema, response), `The limit of ${budget} is ${limit} now.`);
      });
    });
  order("grant <budget> <amount>", "give an extra, once")
    .option("--subject <name>", "to whom; may be left out where the budget has only one")
    .action(async (budget: string, amount: string, flags: OrderFlags, command: Command) => {
      await withClient(command, LedgerService, "operator", async (client, { json }) => {
        const of = { ...requestOf(flags), budget, subject: flags.subject ?? "", value: wholeOf("amount", amount) };
        const response = await client.grantBudget(of, soon());
        done(json, messageJson(GrantBudgetResponseSchema, response), `${budget} has ${amount} more, once.`);
      });
    });
  order(
    "freeze <selector>",
    "let nothing more be spent: tenant, budget:<name>, agent:, user:, session:, tool:, group:",
  ).action(async (selector: string, flags: OrderFlags, command: Command) => {
    await withClient(command, LedgerService, "operator", async (client, { json }) => {
      const response = await client.freezeBudget({ ...requestOf(flags), selector }, soon());
      done(json, messageJson(FreezeBudgetResponseSchema, response), `${selector} is frozen.`);
    });
  });
  order("thaw <selector>", "let it be spent again").action(
    async (selector: string, flags: OrderFlags, command: Command) => {
      await withClient(command, LedgerService, "operator", async (client, { json }) => {
        const response = await client.thawBudget({ ...requestOf(flags), selector }, soon());
        done(json, messageJson(ThawBudgetResponseSchema, response), `${selector} is thawed.`);
      });
    },
  );
}

function addRevisions(budgets: Command): void {
  budgets
    .command("apply <file>")
    .description("put the budgets of a file in force, whole or not at all")
    .requiredOption("--reason <text>", "why; it is for the record")
    .option("--dry-run", "only say what is wrong with it")
    .action(async (file: string, flags: { reason: string; dryRun?: boolean }, command: Command) => {
      const yaml = readText(file);
      await withClient(command, LedgerService, "operator", async (client, { json }) => {
        const { reason, dryRun = false } = flags;
        const response = await client.applyBudgets({ yaml, reason, dryRun }, { deadlineMs: Date.now() + 60_000 });
        const short = response.revision.slice(0, 12);
        const unchanged = dryRun
          ? `It is sound; revision ${short} is not in force by this.`
          : "It was in force already.";
        const text = response.changed ? `Revision ${short} is in force.` : unchanged;
        done(json, messageJson(ApplyBudgetsResponseSchema, response), text);
      });
    });
  budgets
    .command("revisions")
    .description("the revisions there were, the latest first")
    .action(async (_: unknown, command: Command) => {
      await withClient(command, LedgerService, "operator", async (client, { json }) => {
        const response = await client.listBudgets({}, soon());
        const rows = response.revisions.map(({ revision, budgets: count, authorship }) => [
          ...[revision.slice(0, 12), String(count), ...authorCells(authorship)],
        ]);
        const text = table([["REVISION", "BUDGETS", "SINCE", "AUTHOR", "REASON"], ...rows]);
        done(json, messageJson(ListBudgetsResponseSchema, response), text);
      });
    });
}

function authorCells(of: Authorship | undefined): string[] {
  const since = of?.time === undefined ? "" : timestampDate(of.time).toISOString();
  return [since, of?.author ?? "", of?.reason ?? ""];
}

function requestOf({ reason, key }: OrderFlags): { reason: string; key: string } {
  return { reason, key: key ?? uuidv7() };
}

function wholeOf(what: string, text: string): bigint {
  const digits = text.replaceAll("_", "");
  if (/^\d{1,19}$/.test(digits)) return BigInt(digits);
  throw new CliError(`the ${what} is a whole number of units: 2_000_000 usd_micros are 2.00 USD.`);
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new CliError(`${file} cannot be read (${(error as NodeJS.ErrnoException).code ?? "unreadable"}).`);
  }
}

function done(json: boolean, document: string, text: string): void {
  console.log(json ? document : text);
}

import { Command, CommanderError } from "commander";
import { addApprovals } from "./approvals.ts";
import { addAudit } from "./audit.ts";
import { addBudgets } from "./budgets.ts";
import { addCall } from "./call.ts";
import { addCompletion } from "./completion.ts";
import { addDoctor } from "./doctor.ts";
import { EXIT, EXIT_HELP, exitCodeOf, printFailure, usageToJson } from "./exit.ts";
import { addHealth } from "./health.ts";
import { addHost } from "./host.ts";
import { addOperate } from "./operate.ts";
import { addPolicy } from "./policy.ts";
import { printable } from "./print.ts";

/** The command line: one program whose every command also answers with `--json`. */
export function buildProgram(): Command {
  const asJson = process.argv.includes("--json");
  const program = new Command("interlock")
    .description("The control plane your agents' tool calls go through.")
    .version("0.1.0")
    .option("--json", "answer in JSON, one document or one line an item")
    .option("--address <host:port>", "where Interlock listens (INTERLOCK_ADDRESS; default: as --state says)")
    .option("--state <dir>", "state directory, for keys and the journal (INTERLOCK_STATE; default: .interlock)")
    .option("--as <name>", "whose key of the state directory to use, in place of INTERLOCK_KEY")
    .showHelpAfterError(asJson ? false : "(add --help for how to use it)")
    .configureOutput({
      outputError: (text, write) => write(asJson ? `${usageToJson(text)}\n` : printable(text)),
    })
    .configureHelp({ sortSubcommands: false, showGlobalOptions: true })
    .addHelpText("after", EXIT_HELP);
  addHost(program);
  addCall(program);
  addApprovals(program);
  addBudgets(program);
  addOperate(program);
  addPolicy(program);
  addAudit(program);
  addDoctor(program);
  addHealth(program);
  addCompletion(program);
  for (const command of everyCommand(program)) command.exitOverride();
  return program;
}

function* everyCommand(command: Command): Generator<Command> {
  yield command;
  for (const child of command.commands) yield* everyCommand(child);
}

async function main(): Promise<void> {
  const program = buildProgram();
  try {
    await program.parseAsync();
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage;
      return;
    }
    printFailure(error, program.opts<{ json?: boolean }>().json === true);
    process.exitCode = exitCodeOf(error);
  }
}

// A reader that has seen enough (`| head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(EXIT.ok);
  throw error;
});

if (import.meta.main) await main();

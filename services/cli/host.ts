import { once } from "node:events";
import { existsSync } from "node:fs";
import type { Command } from "commander";
import type { ServiceName } from "../interlock.ts";
import { type Config, configSchema, readConfig } from "../shared/config.ts";
import { createLog } from "../shared/log.ts";
import { initialiseState } from "../shared/state-dir.ts";
import { FileProblems } from "../shared/yaml-file.ts";
import { startDetached, stopRunning } from "./detach.ts";
import { CliError, EXIT, mendable } from "./exit.ts";
import { jsonLine } from "./print.ts";
import { recordRunning } from "./running.ts";
import { globalsOf } from "./session.ts";

type HostFlags = { config?: string; nats?: string; listen?: string; policies?: string; detach?: boolean };

/** Said here again: to load the services themselves takes half a second, and most commands only call them. */
const SERVICES: Readonly<Record<ServiceName, true>> = {
  pdp: true,
  ledger: true,
  approvals: true,
  runner: true,
  broker: true,
};
const SERVICE_NAMES = Object.keys(SERVICES).filter(isServiceName);

function isServiceName(text: string): text is ServiceName {
  return Object.hasOwn(SERVICES, text);
}

/** `up`, `serve`, `down`: host the services. */
export function addHost(program: Command): void {
  const hosting = (command: Command) =>
    command
      .option("--config <file>", "interlock.yaml (default: the one in the working directory, if there is one)")
      .option("--nats <url>", "talk over NATS and keep state in JetStream")
      .option("--listen <host:port>", "where to listen (default: --address, or as configured, or 127.0.0.1:7443)")
      .option("--policies <dir>", "directory of rules, budgets and tools");
  hosting(program.command("up").description("host all five services in this process"))
    .option("-d, --detach", "go on in the background; `interlock down` stops it")
    .action(async (flags: HostFlags, command: Command) => {
      const config = configOf(flags, command);
      if (flags.detach === true) await detach(config, listenOf(flags, command), globalsOf(command).json);
      else await host(config, SERVICE_NAMES, globalsOf(command).json);
    });
  hosting(program.command("serve <service>").description(`host one service: ${SERVICE_NAMES.join(", ")}`)).action(
    async (service: string, flags: HostFlags, command: Command) => {
      if (!isServiceName(service)) {
        throw new CliError(`there is no service "${service}": it is one of ${SERVICE_NAMES.join(", ")}.`);
      }
      const config = configOf(flags, command);
      if (config.nats === undefined) throw new CliError("a single service needs --nats <url> to reach the others.");
      await host(config, [service], globalsOf(command).json);
    },
  );
  program
    .command("down")
    .description("stop what `up` started on this state directory, and wait until it has")
    .action(async (_: unknown, command: Command) => {
      const { state, json } = globalsOf(command);
      const stopped = await stopRunning(state);
      if (json) console.log(jsonLine({ stopped: stopped ?? null }));
      else console.log(stopped === undefined ? "Interlock is not running here." : "Stopped.");
    });
}

/** What the command line asks for; undefined when it leaves that to the configuration. */
function listenOf(flags: HostFlags, command: Command): string | undefined {
  return flags.listen ?? command.optsWithGlobals<{ address?: string }>().address;
}

function configOf(flags: HostFlags, command: Command): Config {
  const file = flags.config ?? (existsSync("interlock.yaml") ? "interlock.yaml" : undefined);
  const base = file === undefined ? configSchema.parse({}) : readConfig(file);
  const state = command.optsWithGlobals<{ state?: string }>().state ?? process.env["INTERLOCK_STATE"];
  const listen = listenOf(flags, command);
  const merged = configSchema.safeParse({
    ...base,
    ...(flags.nats === undefined ? {} : { nats: { ...base.nats, url: flags.nats } }),
    ...(listen === undefined ? {} : { listen }),
    ...(flags.policies === undefined ? {} : { policies: flags.policies }),
    ...(state === undefined ? {} : { state }),
  });
  if (merged.success) return merged.data;
  throw new FileProblems(
    merged.error.issues.map((issue) => ({
      file: "command line",
      line: undefined,
      field: `--${String(issue.path[0])}`,
      message: `${issue.message}.`,
    })),
  );
}

/** Serves until asked to stop, then drains. A second signal does not wait. */
async function host(config: Config, services: readonly ServiceName[], json: boolean): Promise<void> {
  const log = createLog({ level: config.log_level, service: services.length === 1 ? `${services[0]}` : "interlock" });
  const stop = new AbortController();
  let signals = 0;
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (++signals > 1) process.exit(EXIT.failed);
      stop.abort();
    });
  }
  const whole = services.length === SERVICE_NAMES.length;
  const { running, created } = await mendable(EXIT.unavailable, async () => {
    const { startInterlock } = await import("../interlock.ts");
    // A service by itself is given its keys; it never makes some of its own that nobody else knows.
    const { created } = whole ? initialiseState(config) : { created: [] };
    return { running: await startInterlock(config, { services, log }), created };
  });
  await using _running = running;
  using _record = whole ? recordRunning(config.state, running.address) : undefined;
  const { address, page, journal } = running;
  if (json) console.log(jsonLine({ address, page: page ?? null, services, created, journal }));
  else {
    for (const file of created) console.log(`made ${file}`);
    console.log(`Interlock listens on ${address}: ${services.join(", ")}; journal: ${journal}.`);
    if (page !== undefined) console.log(`Reviewers answer on ${page}; a link to log in: interlock approvals open`);
  }
  if (!stop.signal.aborted) await once(stop.signal, "abort");
}

async function detach(config: Config, wanted: string | undefined, json: boolean): Promise<void> {
  const detached = await mendable(EXIT.unavailable, () => startDetached(config.state, wanted));
  const { address, pid, log, started } = detached;
  if (json) console.log(jsonLine(detached));
  else if (started)
    console.log(`Interlock listens on ${address} (process ${pid}, log ${log}). Stop it: interlock down`);
  else console.log(`Interlock listens on ${address} already (process ${pid}, log ${log}).`);
}

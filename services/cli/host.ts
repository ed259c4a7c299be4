import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { PdpService } from "../../proto/interlock/v1/pdp_pb.ts";
import { isServiceName, SERVICE_NAMES, type ServiceName, startInterlock } from "../interlock.ts";
import { type Config, configSchema, readConfig } from "../shared/config.ts";
import { createLog } from "../shared/log.ts";
import { openGrpcChannel } from "../shared/rpc/grpc-client.ts";
import { initialiseState } from "../shared/state-dir.ts";
import { FileProblems } from "../shared/yaml-file.ts";
import { CliError, EXIT } from "./exit.ts";
import { globalsOf, readApiKey } from "./session.ts";

type HostFlags = { config?: string; nats?: string; listen?: string; policies?: string; detach?: boolean };

/** `up`, `serve`, `down`: host the services. */
export function addHost(program: Command): void {
  const hosting = (command: Command) =>
    command
      .option("--config <file>", "interlock.yaml (default: the one in the working directory, if there is one)")
      .option("--nats <url>", "talk over NATS and keep state in JetStream")
      .option("--listen <host:port>", "where to listen")
      .option("--policies <dir>", "directory of rules, budgets and tools");
  hosting(program.command("up").description("host all five services in this process"))
    .option("-d, --detach", "go on in the background; `interlock down` stops it")
    .action(async (flags: HostFlags, command: Command) => {
      const config = configOf(flags, command);
      if (flags.detach === true) await detach(config, command);
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
    .description("stop what `up --detach` started")
    .action(async (_: unknown, command: Command) => await down(globalsOf(command).state));
}

function configOf(flags: HostFlags, command: Command): Config {
  const file = flags.config ?? (existsSync("interlock.yaml") ? "interlock.yaml" : undefined);
  const base = file === undefined ? configSchema.parse({}) : readConfig(file);
  const given = command.optsWithGlobals<{ state?: string }>().state ?? process.env["INTERLOCK_STATE"];
  const merged = configSchema.safeParse({
    ...base,
    ...(flags.nats === undefined ? {} : { nats: { ...base.nats, url: flags.nats } }),
    ...(flags.listen === undefined ? {} : { listen: flags.listen }),
    ...(flags.policies === undefined ? {} : { policies: flags.policies }),
    ...(given === undefined ? {} : { state: given }),
  });
  if (merged.success) return merged.data;
  throw new FileProblems(
    merged.error.issues.map((issue) => ({
      file: "command line",
      line: undefined,
      field: `--${issue.path.map(String).join(".")}`,
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
  // A service by itself is given its keys; it never makes some of its own that nobody else knows.
  const { created } = services.length === SERVICE_NAMES.length ? initialiseState(config) : { created: [] };
  await using running = await startInterlock(config, { services, log });
  const ready = { address: running.address, services, created, journal: running.journal };
  if (json) console.log(JSON.stringify(ready));
  else {
    for (const file of created) console.log(`made ${file}`);
    console.log(`Interlock listens on ${running.address}: ${services.join(", ")}; journal: ${running.journal}.`);
  }
  if (!stop.signal.aborted) await once(stop.signal, "abort");
}

/** Starts `up` in the background and waits until it answers. */
async function detach(config: Config, command: Command): Promise<void> {
  const pidFile = join(config.state, "interlock.pid");
  const logFile = join(config.state, "interlock.log");
  const running = runningPid(pidFile);
  if (running !== undefined) {
    console.log(`Interlock already listens on ${config.listen} (process ${running}).`);
    return;
  }
  mkdirSync(config.state, { recursive: true, mode: 0o700 });
  const log = openSync(logFile, "a", 0o600);
  const args = process.argv.slice(2).filter((arg) => arg !== "--detach" && arg !== "-d");
  const script = process.argv[1];
  if (script === undefined) throw new Error("the process has no script");
  const child = spawn(process.execPath, [...process.execArgv, script, ...args], {
    detached: true,
    stdio: ["ignore", log, log],
  });
  const ended = new AbortController();
  child.once("exit", () => ended.abort());
  if (child.pid === undefined) throw new CliError("the background process could not be started.", EXIT.unavailable);
  writeFileSync(pidFile, String(child.pid), { mode: 0o600 });
  if (!(await answers(config, command, ended.signal))) {
    rmSync(pidFile, { force: true });
    const tail = readFileSync(logFile, "utf8").trimEnd().split("\n").slice(-5).join("\n");
    throw new CliError(`it did not start; the end of ${logFile}:\n${tail}`, EXIT.unavailable);
  }
  child.unref();
  console.log(`Interlock listens on ${config.listen} (process ${child.pid}, log ${logFile}). Stop it: interlock down`);
}

async function answers(config: Config, command: Command, ended: AbortSignal): Promise<boolean> {
  const globals = { ...globalsOf(command), state: config.state, as: "operator" };
  const deadline = Date.now() + 60_000;
  while (!ended.aborted && Date.now() < deadline) {
    try {
      await using channel = openGrpcChannel({ address: config.listen, apiKey: readApiKey(globals, "operator") });
      await channel.client(PdpService).getRevision({}, { deadlineMs: Date.now() + 1000, signal: ended });
      return true;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  return false;
}

async function down(state: string): Promise<void> {
  const pidFile = join(state, "interlock.pid");
  const pid = runningPid(pidFile);
  if (pid === undefined) {
    console.log("Interlock is not running in the background.");
    return;
  }
  process.kill(pid, "SIGTERM");
  const deadline = Date.now() + 30_000;
  while (runningPid(pidFile) !== undefined) {
    if (Date.now() > deadline) throw new CliError(`process ${pid} has not stopped within 30 s.`, EXIT.unavailable);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  rmSync(pidFile, { force: true });
  console.log("Stopped.");
}

/** The recorded process, if it is alive and still ours: ids are used again after a reboot. */
function runningPid(pidFile: string): number | undefined {
  try {
    const pid = Number(readFileSync(pidFile, "utf8"));
    const commandLine = readFileSync(`/proc/${pid}/cmdline`, "utf8");
    return commandLine.includes("cli/main.ts") ? pid : undefined;
  } catch {
    return undefined;
  }
}

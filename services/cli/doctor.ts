import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import type { Command } from "commander";
import { RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import { configSchema } from "../shared/config.ts";
import { silentLog } from "../shared/log.ts";
import { EXIT, mendable } from "./exit.ts";
import { jsonLine, table } from "./print.ts";
import { type RunningRecord, readRunning } from "./running.ts";
import { globalsOf, withClient } from "./session.ts";

/** One thing that is there or is not. */
type Finding = {
  readonly name: string;
  readonly ok: boolean;
  /** Without it there is no Interlock here; the rest can be done without. */
  readonly needed: boolean;
  readonly notes: readonly string[];
};

/** `doctor`: what this machine can run, and why not. */
export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("what this machine can run, and why not; fails when it cannot run Interlock at all")
    .action(async (_: unknown, command: Command) => {
      const globals = globalsOf(command);
      const findings = [
        node(),
        ...(await mendable(EXIT.failed, () => sandboxes(globals.state))),
        tool(
          "nats-server",
          ["--version"],
          "services in separate processes, and the tests over NATS, need it: apt-get install nats-server",
        ),
        tool(
          "/usr/bin/python3",
          ["-c", "import grpc; print('grpcio', grpc.__version__)"],
          "the Python example needs it: apt-get install python3-grpcio",
        ),
        await port(globals.address, readRunning(globals.state)),
        ...(await pool(command, readRunning(globals.state))),
      ];
      if (globals.json) console.log(jsonLine(findings));
      else console.log(table(findings.flatMap(rows)));
      const lacking = findings.some((finding) => finding.needed && !finding.ok);
      process.exitCode = lacking ? EXIT.failed : EXIT.ok;
    });
}

/** What is to be said about it takes a line for each note. */
function rows(finding: Finding): string[][] {
  const [first = "", ...more] = finding.notes;
  return [[finding.ok ? "ok" : "--", finding.name, first], ...more.map((note) => ["", "", note])];
}

function node(): Finding {
  const ok = Number(process.versions.node.split(".")[0]) >= 24;
  const note = ok ? process.version : `${process.version}: 24 or newer is needed. Run make up.`;
  return { name: "Node", ok, needed: true, notes: [note] };
}

async function sandboxes(state: string): Promise<Finding[]> {
  const config = configSchema.parse({ state, runner: { id: "doctor" } });
  const { openBackends } = await import("../interlock.ts");
  const backends = await openBackends(config, { bootId: "doctor", log: silentLog, now: Date.now });
  try {
    const capabilities = (await Promise.all(backends.map((backend) => backend.describe()))).flat();
    return capabilities.map((capability) => ({
      name: `${capability.kind} (${capability.isolationClass})`,
      ok: capability.available,
      needed: capability.kind === "isolate",
      notes: [
        capability.note,
        capability.images.length > 0 ? `images: ${capability.images.join(", ")}` : "",
        capability.enforced.length > 0 ? `holds: ${capability.enforced.join(", ")}` : "",
        capability.missing.length > 0 ? `DOES NOT HOLD: ${capability.missing.join(", ")}` : "",
      ].filter((part) => part !== ""),
    }));
  } finally {
    await Promise.all(backends.map((backend) => backend[Symbol.asyncDispose]()));
  }
}

/** Of the Interlock that runs here, if one does. */
async function pool(command: Command, running: RunningRecord | undefined): Promise<Finding[]> {
  if (running === undefined) return [];
  const finding = { name: "warm containers", needed: false };
  try {
    const { capabilities } = await withClient(command, RunnerService, "operator", (client) => client.describe({}));
    const found = capabilities.find((capability) => capability.pool !== undefined)?.pool;
    if (found === undefined) return [];
    const { idle, making, sessions, claimed, missed } = found;
    const note = `${idle} ready, ${making} in the making, ${sessions} kept for sessions; ${claimed} claimed, ${missed} not ready in time`;
    return [{ ...finding, ok: true, notes: [note] }];
  } catch (error) {
    return [
      {
        ...finding,
        ok: false,
        notes: [`the running Interlock does not say: ${error instanceof Error ? error.message : error}`],
      },
    ];
  }
}

function tool(program: string, args: readonly string[], mend: string): Finding {
  try {
    const said = execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    return { name: program, ok: true, needed: false, notes: [said.trim()] };
  } catch {
    return { name: program, ok: false, needed: false, notes: [mend] };
  }
}

async function port(address: string, running: RunningRecord | undefined): Promise<Finding> {
  const finding = { name: `address ${address}`, needed: false };
  if (running?.address === address) {
    return { ...finding, ok: true, notes: [`Interlock listens there (process ${running.pid})`] };
  }
  const colon = address.lastIndexOf(":");
  const server = createServer();
  try {
    server.listen(Number(address.slice(colon + 1)), address.slice(0, colon));
    await once(server, "listening");
    return { ...finding, ok: true, notes: ["free: `interlock up` can listen there"] };
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : error;
    const why = code === "EADDRINUSE" ? "in use by another program" : `nothing can listen there (${code})`;
    return { ...finding, ok: false, notes: [`${why}; \`interlock up --listen <host:port>\` chooses another`] };
  } finally {
    server.close();
  }
}

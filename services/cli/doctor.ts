import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import type { Command } from "commander";
import { openBackends } from "../interlock.ts";
import { configSchema } from "../shared/config.ts";
import { silentLog } from "../shared/log.ts";
import { table } from "./print.ts";
import { globalsOf } from "./session.ts";

/** One thing that is there or is not. */
type Finding = { readonly name: string; readonly ok: boolean; readonly note: string };

/** `doctor`: what this machine can run, and why not. */
export function addDoctor(program: Command): void {
  program
    .command("doctor")
    .description("what this machine can run, and why not")
    .action(async (_: unknown, command: Command) => {
      const globals = globalsOf(command);
      const findings = [
        node(),
        ...(await sandboxes(globals.state)),
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
        await port(globals.address),
      ];
      if (globals.json) console.log(JSON.stringify(findings));
      else console.log(table(findings.map((finding) => [finding.ok ? "ok" : "--", finding.name, finding.note])));
    });
}

function node(): Finding {
  const major = Number(process.versions.node.split(".")[0]);
  const note = major >= 24 ? process.version : `${process.version}: 24 or newer is needed. Run make up.`;
  return { name: "Node", ok: major >= 24, note };
}

async function sandboxes(state: string): Promise<Finding[]> {
  const config = configSchema.parse({ state, runner: { id: "doctor" } });
  const backends = await openBackends(config, { bootId: "doctor", log: silentLog, now: Date.now });
  try {
    const capabilities = (await Promise.all(backends.map((backend) => backend.describe()))).flat();
    return capabilities.map((capability) => ({
      name: `${capability.kind} (${capability.isolationClass})`,
      ok: capability.available,
      note: [
        capability.note,
        capability.images.length > 0 ? `images: ${capability.images.join(", ")}` : "",
        capability.enforced.length > 0 ? `holds: ${capability.enforced.join(", ")}` : "",
        capability.missing.length > 0 ? `DOES NOT HOLD: ${capability.missing.join(", ")}` : "",
      ]
        .filter((part) => part !== "")
        .join("; "),
    }));
  } finally {
    await Promise.all(backends.map((backend) => backend[Symbol.asyncDispose]()));
  }
}

function tool(program: string, args: readonly string[], mend: string): Finding {
  try {
    const said = execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    return { name: program, ok: true, note: said.trim() };
  } catch {
    return { name: program, ok: false, note: mend };
  }
}

async function port(address: string): Promise<Finding> {
  const [host, number] = address.split(":");
  const server = createServer();
  try {
    server.listen(Number(number), host);
    await once(server, "listening");
    return { name: `address ${address}`, ok: true, note: "free: `interlock up` can listen there" };
  } catch {
    return {
      name: `address ${address}`,
      ok: true,
      note: "in use, by a running Interlock perhaps; --listen chooses another",
    };
  } finally {
    server.close();
  }
}

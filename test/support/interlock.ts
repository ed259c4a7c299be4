import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parse, stringify } from "yaml";
import { natsLogin, natsUsers, newPasswords } from "../../deploy/secrets.ts";
import { type HostOptions, SERVICE_NAMES, type ServiceName, startInterlock } from "../../services/interlock.ts";
import { type ConfigInput, configSchema } from "../../services/shared/config.ts";
import { silentLog } from "../../services/shared/log.ts";
import { credentialsFile, initialiseState } from "../../services/shared/state-dir.ts";
import { startNats } from "./nats.ts";

/** Interlock as it really runs, in the three compositions that the same code must serve alike. */
export type Running = AsyncDisposable & {
  readonly address: string;
  readonly state: string;
  /** Where the reviewers' page is. */
  readonly page: string;
  readonly configFile: string;
  /** Where NATS listens; undefined when embedded. */
  readonly natsUrl: string | undefined;
  readonly keys: { readonly agent: string; readonly reviewer: string; readonly operator: string };
};

/** Five processes, each of which can be killed and started again. */
export type RunningApart = Running & {
  /** SIGKILL, and wait until it is gone. */
  kill(service: ServiceName): Promise<void>;
  start(service: ServiceName): Promise<void>;
  /** Ends the NATS server; `startNats` brings it back on the same port and store. */
  killNats(): Promise<void>;
  startNats(): Promise<void>;
};

export type Options = {
  readonly config?: Partial<ConfigInput>;
  readonly host?: Partial<Pick<HostOptions, "backends" | "now">>;
  /** Five processes only: NATS as deployed, each service with a user that may do no more than it must. */
  readonly natsUsers?: boolean;
};

export async function startEmbedded(options: Options = {}): Promise<Running> {
  const made = makeState({ ...options.config });
  return await startInProcess(made, options, undefined);
}

export async function startOverNats(options: Options = {}): Promise<Running> {
  const nats = await startNats({ jetstream: true });
  const made = makeState({ ...options.config, nats: { url: nats.url } });
  return await startInProcess(made, options, nats);
}

export async function startApart(options: Options = {}): Promise<RunningApart> {
  const passwords = options.natsUsers === true ? newPasswords() : undefined;
  const nats = await startNats({
    jetstream: true,
    ...(passwords === undefined ? {} : { deployed: natsUsers(passwords) }),
  });
  const made = makeState({ ...options.config, nats: { url: nats.url } });
  const configOf = (service: ServiceName): string => {
    if (passwords === undefined) return made.configFile;
    const file = join(made.state, `${service}.yaml`);
    const passwordFile = join(made.state, `${service}.password`);
    writeFileSync(passwordFile, passwords[service]);
    const login = { url: nats.url, ...natsLogin(service), password_file: passwordFile };
    writeFileSync(file, stringify({ ...made.config, nats: login }));
    return file;
  };
  const children = new Map<ServiceName, ChildProcess>();
  let address = "";
  let page = "";
  const start = async (service: ServiceName): Promise<void> => {
    // The broker keeps its port over a restart, as a real one does.
    const listen = service === "broker" && address !== "" ? address : "127.0.0.1:0";
    const child = spawn(
      "bin/interlock",
      ["--json", "serve", service, "--config", configOf(service), "--listen", listen],
      {
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    children.set(service, child);
    const ready = await firstLine(child, service);
    const said = JSON.parse(ready) as { address: string; page: string | null };
    if (service === "broker") address = said.address;
    if (service === "approvals") page = said.page ?? "";
  };
  const kill = async (service: ServiceName): Promise<void> => {
    const child = children.get(service);
    children.delete(service);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  const stop = async (): Promise<void> => {
    await Promise.all(SERVICE_NAMES.map(kill));
    await nats[Symbol.asyncDispose]();
    made.remove();
  };
  try {
    await Promise.all(SERVICE_NAMES.map(start));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    get address() {
      return address;
    },
    get page() {
      return page;
    },
    state: made.state,
    configFile: made.configFile,
    natsUrl: nats.url,
    keys: made.keys,
    kill,
    start,
    killNats: () => nats.kill(),
    startNats: () => nats.restart(),
    [Symbol.asyncDispose]: stop,
  };
}

type Made = Pick<Running, "state" | "configFile" | "keys"> & {
  readonly config: ConfigInput;
  readonly remove: () => void;
};

function makeState(given: Partial<ConfigInput>): Made {
  const state = mkdtempSync(join(tmpdir(), "interlock-test-"));
  const runner = { ...given.runner, id: given.runner?.id ?? `test-${state.slice(-6)}` };
  const config: ConfigInput = { listen: "127.0.0.1:0", log_level: "warn", ...given, state, runner };
  const configFile = join(state, "interlock.yaml");
  writeFileSync(configFile, stringify(config));
  initialiseState(configSchema.parse(config));
  const credentials = parse(readFileSync(credentialsFile(state), "utf8")) as Record<string, string>;
  const keyOf = (name: string): string => {
    const key = credentials[name];
    if (key === undefined) throw new Error(`no credential ${name}`);
    return key;
  };
  return {
    state,
    configFile,
    config,
    keys: { agent: keyOf("demo-agent"), reviewer: keyOf("alice"), operator: keyOf("operator") },
    remove: () => rmSync(state, { recursive: true, force: true }),
  };
}

async function startInProcess(
  made: Made,
  options: Options,
  nats: Awaited<ReturnType<typeof startNats>> | undefined,
): Promise<Running> {
  const stack = new AsyncDisposableStack();
  stack.defer(made.remove);
  if (nats !== undefined) stack.use(nats);
  try {
    const running = await startInterlock(configSchema.parse(made.config), {
      services: SERVICE_NAMES,
      log: silentLog,
      ...options.host,
    });
    stack.use(running);
    return {
      address: running.address,
      page: running.page ?? "",
      state: made.state,
      configFile: made.configFile,
      natsUrl: nats?.url,
      keys: made.keys,
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** The line that says it is ready. Rejects, with what it said, when it ends before. */
async function firstLine(child: ChildProcess, service: string): Promise<string> {
  if (child.stdout === null || child.stderr === null) throw new Error("the child has no pipes");
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => {
    errors = (errors + chunk.toString()).slice(-4000);
  });
  const lines = createInterface({ input: child.stdout });
  const line = once(lines, "line").then(([text]) => String(text));
  const ended = once(child, "exit").then(() => {
    throw new Error(`${service} ended before it was ready:\n${errors}`);
  });
  return await Promise.race([line, ended]);
}

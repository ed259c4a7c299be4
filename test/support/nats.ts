import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A real nats-server of the test's own, on 127.0.0.1. */
export type RunningNats = AsyncDisposable & {
  readonly url: string;
  readonly port: number;
  /** SIGKILL, and wait until it is gone. */
  kill(): Promise<void>;
  /** Again on the same port and store. */
  restart(): Promise<void>;
};

/**
 * `config`: more lines of nats-server's own configuration. `deployed`: that of deploy/nats.conf to the letter, with
 * these lines as its nats-users.conf.
 */
export async function startNats(options: {
  readonly jetstream: boolean;
  readonly config?: string;
  readonly deployed?: string;
}): Promise<RunningNats> {
  const folder = mkdtempSync(join(tmpdir(), "interlock-nats-"));
  const configFile = join(folder, "nats.conf");
  let port = -1; // nats-server chooses a free one
  let child: ChildProcess | undefined;
  const start = async (): Promise<void> => {
    const place = configure();
    const started = spawn("nats-server", ["--config", configFile, ...place], { stdio: ["ignore", "ignore", "pipe"] });
    child = started;
    port = await portOf(started, port);
    await accepts(port);
  };
  const kill = async (): Promise<void> => {
    const running = child;
    child = undefined;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    running.kill("SIGKILL");
    await once(running, "exit");
  };
  const dispose = async (): Promise<void> => {
    await kill();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await dispose();
    throw error;
  }
  return { url: `nats://127.0.0.1:${port}`, port, kill, restart: start, [Symbol.asyncDispose]: dispose };

  /** Writes the configuration; what is the test's own besides comes as arguments. */
  function configure(): readonly string[] {
    const store = join(folder, "store");
    if (options.deployed === undefined) {
      const jetstream = options.jetstream ? `jetstream { store_dir: "${store}" }` : "";
      writeFileSync(configFile, `listen: "127.0.0.1:${port}"\n${jetstream}\n${options.config ?? ""}\n`);
      return [];
    }
    copyFileSync(join(import.meta.dirname, "../../deploy/nats.conf"), configFile);
    writeFileSync(join(folder, "nats-users.conf"), options.deployed);
    return ["--addr", "127.0.0.1", "--port", String(port), "--store_dir", store];
  }

  /** Read from what it logs, which it does once it is ready. */
  async function portOf(started: ChildProcess, known: number): Promise<number> {
    let said = "";
    return await new Promise((resolve, reject) => {
      started.once("error", reject);
      started.once("exit", (code) => reject(new Error(`nats-server ended (exit code ${code}):\n${said}`)));
      started.stderr?.on("data", (chunk: Buffer) => {
        said += chunk.toString();
        if (!said.includes("Server is ready")) return;
        const listening = /Listening for client connections on 127\.0\.0\.1:(\d+)/.exec(said);
        resolve(known > 0 ? known : Number(listening?.[1]));
      });
    });
  }
}

async function accepts(port: number): Promise<void> {
  const socket = connectTcp(port, "127.0.0.1");
  await once(socket, "connect");
  socket.destroy();
}

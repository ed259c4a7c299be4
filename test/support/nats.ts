import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
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

/** `config`: more lines of nats-server's own configuration. */
export async function startNats(options: {
  readonly jetstream: boolean;
  readonly config?: string;
}): Promise<RunningNats> {
  const folder = mkdtempSync(join(tmpdir(), "interlock-nats-"));
  const configFile = join(folder, "nats.conf");
  let port = -1; // nats-server chooses a free one
  let child: ChildProcess | undefined;
  const start = async (): Promise<void> => {
    const store = options.jetstream ? `jetstream { store_dir: "${join(folder, "store")}" }` : "";
    writeFileSync(configFile, `listen: "127.0.0.1:${port}"\n${store}\n${options.config ?? ""}\n`);
    const started = spawn("nats-server", ["--config", configFile], { stdio: ["ignore", "ignore", "pipe"] });
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

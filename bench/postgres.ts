import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chownSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Pool } from "pg";

/** PostgreSQL as Debian has it, on a cluster of the benchmark's own: 127.0.0.1 only, its defaults for durability. */
export type Postgres = AsyncDisposable & { readonly pool: (connections: number) => Pool };

const LIB = "/usr/lib/postgresql";

/** @throws Error saying what to install. */
export async function startPostgres(): Promise<Postgres> {
  const bin = join(LIB, newestVersion(), "bin");
  const folder = mkdtempSync(join(tmpdir(), "interlock-postgres-"));
  const user = process.getuid?.() === 0 ? "postgres" : undefined; // it refuses to run as root
  if (user !== undefined) chownSync(folder, idOf(user, "-u"), idOf(user, "-g"));
  const as = (command: string, args: string[]): [string, string[]] =>
    user === undefined
      ? [command, args]
      : ["setpriv", ["--reuid", user, "--regid", user, "--clear-groups", command, ...args]];
  const [init, initArgs] = as(join(bin, "initdb"), ["-D", folder, "-U", "bench", "--auth=trust", "--no-instructions"]);
  execFileSync(init, initArgs, { stdio: ["ignore", "ignore", "inherit"], cwd: folder });
  const port = await freePort();
  const settings = ["-h", "127.0.0.1", "-p", String(port), "-k", folder, "-c", "max_connections=300"];
  const [run, runArgs] = as(join(bin, "postgres"), ["-D", folder, ...settings]);
  const child = spawn(run, runArgs, { stdio: ["ignore", "ignore", "pipe"], cwd: folder });
  await ready(child);
  const pools: Pool[] = [];
  return {
    pool: (max) => {
      const pool = new Pool({ host: "127.0.0.1", port, user: "bench", database: "postgres", max });
      pool.on("error", () => {}); // of an idle connection: whoever asks next is told
      pools.push(pool);
      return pool;
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(pools.map((pool) => pool.end()));
      child.kill("SIGINT"); // its fast shutdown
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function newestVersion(): string {
  try {
    const versions = readdirSync(LIB).sort((a, b) => Number(b) - Number(a));
    if (versions[0] !== undefined) return versions[0];
  } catch {
    // said below
  }
  throw new Error("the ledger's benchmark needs PostgreSQL: apt-get install postgresql");
}

function idOf(user: string, flag: string): number {
  return Number(execFileSync("id", [flag, user], { encoding: "utf8" }));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port is free");
  return address.port;
}

async function ready(child: ChildProcess): Promise<void> {
  if (child.stderr === null) throw new Error("postgres has no stderr");
  let said = "";
  for await (const line of createInterface({ input: child.stderr })) {
    said += `${line}\n`;
    if (line.includes("ready to accept connections")) {
      child.stderr.resume();
      return;
    }
  }
  throw new Error(`postgres ended before it was ready:\n${said}`);
}

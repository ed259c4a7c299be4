import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Client, credentials } from "@grpc/grpc-js";
import { stringify } from "yaml";
import type { ConfigInput } from "../services/shared/config.ts";
import { hashKey } from "../services/shared/state-dir.ts";
import { ECHO } from "./echo-server.ts";

/** The servers a benchmark talks to, each in a process of its own, as in life. */

export type Echo = AsyncDisposable & { readonly echo: (message: Buffer) => Promise<Buffer> };

export async function startEcho(): Promise<Echo> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "echo-server.ts")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const port = await firstLine(child);
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const method = ECHO["echo"];
  if (method === undefined) throw new Error("the echo service has no method");
  return {
    echo: (message) =>
      new Promise((resolve, reject) => {
        client.makeUnaryRequest<Buffer, Buffer>(
          method.path,
          method.requestSerialize,
          method.responseDeserialize as (bytes: Buffer) => Buffer,
          message,
          (error, value) => (error === null ? resolve(value ?? Buffer.alloc(0)) : reject(error)),
        );
      }),
    [Symbol.asyncDispose]: async () => {
      client.close();
      await end(child);
    },
  };
}

export type Governed = AsyncDisposable & {
  readonly address: string;
  readonly pid: number;
  readonly apiKey: string;
  readonly operatorKey: string;
};

/** `interlock up` with the benchmark's tenant, policy and budgets; over NATS when a URL is given. */
export async function startGoverned(config: Partial<ConfigInput>): Promise<Governed> {
  const state = mkdtempSync(join(tmpdir(), "interlock-bench-"));
  const apiKey = "ilk_bench_0123456789abcdef0123456789abcdef";
  const operatorKey = "ilk_bench_operator_0123456789abcdef0123456789";
  const person = { kind: "person", tenant: "bench", name: "operator", roles: ["operator", "reviewer"] };
  const keys = [
    { kind: "agent", sha256: hashKey(apiKey), tenant: "bench", agent: "bench-agent" },
    { ...person, sha256: hashKey(operatorKey) },
  ];
  writeFileSync(join(state, "keys.yaml"), stringify({ keys }));
  const configFile = join(state, "interlock.yaml");
  const full: ConfigInput = {
    listen: "127.0.0.1:0",
    log_level: "warn",
    policies: join(import.meta.dirname, "../policies/bench"),
    ...config,
    state,
    runner: { id: "bench", builtins: true, containers: "off", max_concurrent: 1024, ...config.runner },
  };
  writeFileSync(configFile, stringify(full));
  const child = spawn("bin/interlock", ["--json", "up", "--config", configFile], {
    cwd: join(import.meta.dirname, ".."),
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ready = JSON.parse(await firstLine(child)) as { address: string };
  return {
    address: ready.address,
    pid: child.pid ?? 0,
    apiKey,
    operatorKey,
    [Symbol.asyncDispose]: async () => {
      await end(child);
      rmSync(state, { recursive: true, force: true });
    },
  };
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("the child has no stdout");
  const line = once(createInterface({ input: child.stdout }), "line").then(([text]) => String(text));
  const ended = once(child, "exit").then(([code]) => {
    throw new Error(`the server ended before it was ready (exit code ${code})`);
  });
  return await Promise.race([line, ended]);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGTERM");
  await once(child, "exit");
}

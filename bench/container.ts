import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import Docker from "dockerode";
import type { RunSpec } from "../services/runner/backend.ts";
import { type ContainerBackend, openContainerBackend } from "../services/runner/container.ts";
import { silentLog } from "../services/shared/log.ts";
import { boundRow, plainRow, type Row, ratioRow, type Suite } from "./rows.ts";

/**
 * One line of Python, and `true`, from being asked for to its result: in a container made for it, in one that was ready, in a
 * session's, beside `docker run`, `docker exec` and the interpreter alone on this machine. Then fresh containers a second
 * beside the engine's own rate, what an idle one costs, and the field's yardstick: from create to the first `node -v`.
 */

const LOCK_FILE = join(import.meta.dirname, "../sandbox-images/images.lock.json");
const LINE = ["python3", "-c", "print(1)"] as const;
const NOTHING = ["true"] as const;
const AT_ONCE = 4;
const COLD_BESIDE_WARM = { at: "least", ratio: 8 } as const;
const EXEC_BESIDE_SESSION = { at: "least", ratio: 5 } as const;
const run = promisify(execFile);

export const runContainerSuite: Suite = async ({ full, say }) => {
  const rows: Row[] = [];
  const docker = new Docker();
  const image = imageOf("python");
  const bare = await timed(full ? 100 : 20, () => run("/usr/bin/python3", LINE.slice(1)));
  say(`the interpreter alone: ${bare.p50.toFixed(1)} ms`);
  const dockerRun = await timed(full ? 20 : 6, () =>
    run("docker", ["run", "--rm", "--network", "none", "--entrypoint", LINE[0], image, ...LINE.slice(1)]),
  );
  const dockerExec = await timedExec(docker, image, LINE, full ? 50 : 12);
  const execOfNothing = await timedExec(docker, image, NOTHING, full ? 50 : 12);
  say(`docker run ${dockerRun.p50.toFixed(0)} ms, docker exec ${dockerExec.p50.toFixed(0)} ms`);

  const cold = await withBackend(0, (backend) => timed(full ? 30 : 8, () => call(backend, pythonSpec())));
  const warm = await withBackend(1, async (backend) => {
    await call(backend, pythonSpec());
    return await timed(
      full ? 100 : 25,
      () => call(backend, pythonSpec()),
      () => backend.warmed(),
    );
  });
  const session = await withBackend(0, async (backend) => {
    const spec = { lifetime: "session" } as const;
    await call(backend, pythonSpec(spec));
    return await timed(full ? 200 : 40, () => call(backend, pythonSpec(spec)));
  });
  const nothing = await ofNothing(full);
  say(`cold ${cold.p50.toFixed(0)} ms, warm ${warm.p50.toFixed(1)} ms, session ${session.p50.toFixed(1)} ms`);
  rows.push(
    ratioRow("cold: create, start, run", "p50 ms", cold.p50, dockerRun.p50),
    ratioRow("cold: create, start, run", "p99 ms", cold.p99, dockerRun.p99),
    ratioRow("warm: claim to result", "p50 ms", warm.p50, bare.p50),
    ratioRow("warm: claim to result", "p99 ms", warm.p99, bare.p99),
    boundRow("warm beyond the interpreter's own run", "p50 ms", warm.p50 - bare.p50, 15),
    ratioRow("cold beside warm, Python", "p50 ms", cold.p50, warm.p50, COLD_BESIDE_WARM),
    ratioRow("cold beside warm, `true`", "p50 ms", nothing.cold.p50, nothing.warm.p50, COLD_BESIDE_WARM),
    ratioRow("docker exec beside session exec, Python", "p50 ms", dockerExec.p50, session.p50, EXEC_BESIDE_SESSION),
    ratioRow(
      "docker exec beside session exec, `true`",
      "p50 ms",
      execOfNothing.p50,
      nothing.session.p50,
      EXEC_BESIDE_SESSION,
    ),
    ratioRow("docker exec beside session exec, `true`", "p99 ms", execOfNothing.p99, nothing.session.p99),
  );
  rows.push(...(await sustained(docker, image, full ? 12_000 : 5_000, say)));
  rows.push(...(await idleCost(docker)));
  rows.push(...(await yardstick(full ? 100 : 20, say)));
  return rows;
};

type Times = { readonly p50: number; readonly p95: number; readonly p99: number };

/** Milliseconds of each `what`; `between` is not counted. */
async function timed(count: number, what: () => Promise<unknown>, between?: () => Promise<unknown>): Promise<Times> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    await between?.();
    const startedAt = performance.now();
    await what();
    times.push(performance.now() - startedAt);
  }
  return percentiles(times);
}

function percentiles(times: readonly number[]): Times {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}

/** Where a program takes no time of its own, what is left is ours. */
async function ofNothing(full: boolean): Promise<Record<"cold" | "warm" | "session", Times>> {
  const spec = (lifetime: "call" | "session" = "call"): RunSpec => specOf("python", [...NOTHING], { lifetime });
  return {
    cold: await withBackend(0, (backend) => timed(full ? 30 : 8, () => call(backend, spec()))),
    warm: await withBackend(1, async (backend) => {
      await call(backend, spec());
      return await timed(
        full ? 100 : 20,
        () => call(backend, spec()),
        () => backend.warmed(),
      );
    }),
    session: await withBackend(0, async (backend) => {
      await call(backend, spec("session"));
      return await timed(full ? 200 : 40, () => call(backend, spec("session")));
    }),
  };
}

async function timedExec(docker: Docker, image: string, command: readonly string[], count: number): Promise<Times> {
  const HostConfig = { NetworkMode: "none" };
  const container = await docker.createContainer({ Image: image, Entrypoint: ["sleep", "600"], HostConfig });
  try {
    await container.start();
    return await timed(count, () => run("docker", ["exec", container.id, ...command]));
  } finally {
    await container.remove({ force: true });
  }
}

/** As many as finish in the time, a few at once: with what we do beside the engine's create, start and remove, or without. */
async function sustained(docker: Docker, image: string, ms: number, say: (line: string) => void): Promise<Row[]> {
  const engine = await rate(ms, async () => {
    const container = await docker.createContainer({
      Image: image,
      Entrypoint: ["true"],
      HostConfig: { NetworkMode: "none" },
    });
    await container.start();
    await container.remove({ force: true });
  });
  const ours = await withBackend(AT_ONCE, (backend) => rate(ms, () => call(backend, pythonSpec())));
  say(`fresh containers a second: ours ${ours.toFixed(1)}, the engine alone ${engine.toFixed(1)}`);
  return [ratioRow("fresh-container calls, sustained", "per second", ours, engine, { at: "least", ratio: 0.85 })];
}

async function rate(ms: number, what: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  let done = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() - startedAt < ms) {
      await what();
      done++;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return (1_000 * done) / (performance.now() - startedAt);
}

/** Of one that waits to be claimed: its own memory, and the engine's shim beside it. */
async function idleCost(docker: Docker): Promise<Row[]> {
  const runnerId = `bench-${randomUUID()}`;
  return await withBackend(
    1,
    async (backend) => {
      await call(backend, pythonSpec());
      await backend.warmed();
      const filters = { label: [`interlock.runner=${runnerId}`], status: ["running"] };
      const [idle] = await docker.listContainers({ filters });
      const container = docker.getContainer(idle?.Id ?? "");
      const stats = await container.stats({ stream: false, "one-shot": true });
      const { State } = await container.inspect();
      const shim = /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${State.Pid}/status`, "utf8"))?.[1];
      const shimKb = /^RssAnon:\s+(\d+)/m.exec(readFileSync(`/proc/${shim}/status`, "utf8"))?.[1];
      return [
        boundRow("an idle pooled container", "its memory, MB", stats.memory_stats.usage / 1e6, 4),
        plainRow("an idle pooled container", "the engine's shim beside it, MB", Number(shimKb) / 1e3),
      ];
    },
    runnerId,
  );
}

/**
 * Create to the first answer of `node -v`, as hosted sandboxes are compared. Their published figures include a network;
 * these do not, and are of a machine with two cores.
 */
async function yardstick(count: number, say: (line: string) => void): Promise<Row[]> {
  const rows: Row[] = [];
  for (const way of ["in sequence", "at once"] as const) {
    await withBackend(AT_ONCE, async (backend) => {
      await call(backend, nodeSpec());
      await backend.warmed();
      const times: number[] = [];
      let failed = 0;
      const one = async (): Promise<void> => {
        const startedAt = performance.now();
        const ok = await call(backend, nodeSpec()).then(
          () => true,
          () => false,
        );
        times.push(performance.now() - startedAt);
        if (!ok) failed++;
      };
      if (way === "at once") await Promise.all(Array.from({ length: count }, one));
      else for (let i = 0; i < count; i++) await one();
      const { p50, p95, p99 } = percentiles(times);
      say(
        `node -v, ${count} ${way}: ${p50.toFixed(0)} / ${p95.toFixed(0)} / ${p99.toFixed(0)} ms, ${count - failed} of ${count}`,
      );
      const name = `first node -v, ${count} ${way}`;
      rows.push(plainRow(name, "median ms", p50), plainRow(name, "p95 ms", p95), plainRow(name, "p99 ms", p99));
      rows.push(plainRow(name, "success %", (100 * (count - failed)) / count));
    });
  }
  return rows;
}

async function withBackend<T>(
  warm: number,
  use: (backend: ContainerBackend) => Promise<T>,
  runnerId = `bench-${randomUUID()}`,
): Promise<T> {
  const options = { runnerId, bootId: randomUUID(), lockFile: LOCK_FILE, log: silentLog, now: Date.now, warm };
  await using backend = await openContainerBackend(options);
  return await use(backend);
}

async function call(backend: ContainerBackend, spec: RunSpec): Promise<void> {
  const { end, exitCode, stderr } = await backend.run(spec, {
    signal: new AbortController().signal,
    onOutput: () => {},
  });
  if (end !== "exited" || exitCode !== 0) throw new Error(`a call ended ${end}: ${stderr}`);
}

function pythonSpec(more: { readonly lifetime?: "session" } = {}): RunSpec {
  return specOf("python", [...LINE], more);
}

function nodeSpec(): RunSpec {
  return specOf("node", ["node", "-v"], {});
}

function specOf(
  image: "python" | "node",
  command: string[],
  more: { readonly lifetime?: "call" | "session" },
): RunSpec {
  return {
    ...{ callId: randomUUID(), tenant: "bench", agent: "a", session: "s", user: "", tool: "bench.line", impact: "low" },
    ...{ argumentsJson: "{}", egress: [], secrets: [], depth: 0 },
    sandbox: {
      kind: "container",
      image,
      command,
      lifetime: "call",
      idle_ms: 60_000,
      ttl_ms: 600_000,
      isolation_class: "runc",
      ...more,
    },
    limits: { wallMs: 60_000, cpuMs: 30_000, memoryBytes: 128 << 20, outputBytes: 4_096, pids: 32, egressBytes: 0 },
  };
}

function imageOf(name: string): string {
  return JSON.parse(readFileSync(LOCK_FILE, "utf8")).images[name].id;
}

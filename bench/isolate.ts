import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { PermitClaimsSchema, RunnerService } from "../proto/interlock/v1/runner_pb.ts";
import { openIsolateBackend } from "../services/runner/isolate/backend.ts";
import { startRunner } from "../services/runner/service.ts";
import { sha256Hex } from "../services/shared/json.ts";
import { silentLog } from "../services/shared/log.ts";
import { canonicalManifest, manifestSchema } from "../services/shared/manifest.ts";
import { localClient } from "../services/shared/rpc/local.ts";
import { service } from "../services/shared/rpc/service.ts";
import { newSigningKeyPem, signerFromPem } from "../services/shared/signing.ts";
import { runNestedCase } from "./isolate-nested.ts";
import { type Load, measure, medianOf } from "./load.ts";
import { plainRow, type Row, ratioRow, type Suite } from "./rows.ts";

/**
 * What a call in a fresh, fully confined isolate costs through the runner: permit checked, isolate never used before,
 * result parsed as hostile. The baseline is bare isolated-vm in one process, in the same run.
 */
export const runIsolateSuite: Suite = async ({ full, say }) => {
  await using runner = await openRunner();
  say(`confinement: ${runner.enforced.join(", ")}${runner.missing.length > 0 ? `; MISSING ${runner.missing}` : ""}`);
  const rounds = full ? 5 : 2;
  const durationMs = full ? 3000 : 1200;
  const rows: Row[] = [];
  for (const concurrency of [1, 16]) {
    const ours: Load[] = [];
    const bare: Load[] = [];
    // Interlaced, so that a neighbour's noise falls on both.
    for (let round = 0; round < rounds; round++) {
      bare.push(await measureBare(concurrency, durationMs));
      await runner.sign(Math.ceil((durationMs + 400) * 3));
      ours.push(await measure(() => runner.call(), { concurrency, durationMs, warmUpMs: 300 }));
    }
    const [mine, base] = [medianOf(ours), medianOf(bare)];
    const label = `fresh isolate c=${concurrency}`;
    say(`${label}: ${mine.count} calls, p50 ${mine.p50Ms.toFixed(2)} ms; bare ${base.p50Ms.toFixed(2)} ms`);
    rows.push(ratioRow(label, "p50 ms", mine.p50Ms, base.p50Ms, { at: "most", ratio: 1.5 }));
    rows.push(ratioRow(label, "p99 ms", mine.p99Ms, base.p99Ms));
    rows.push(ratioRow(label, "calls/s", mine.perSecond, base.perSecond, { at: "least", ratio: 0.8 }));
  }
  rows.push(plainRow("ready isolate", "resident MB, its process whole", await runner.residentPerWorker()));
  rows.push(...(await runNestedCase(full, say)));
  return rows;
};

const PROGRAM = "return input.map((x) => x * x)";
const run = promisify(execFile);

async function measureBare(concurrency: number, durationMs: number): Promise<Load> {
  const script = join(import.meta.dirname, "bare-isolate.ts");
  const args = ["--no-node-snapshot", "--no-warnings", script, PROGRAM, String(concurrency), String(durationMs)];
  const { stdout } = await run(process.execPath, args);
  return JSON.parse(stdout) as Load;
}

async function openRunner() {
  const signer = signerFromPem(newSigningKeyPem());
  const workers = { workers: 8, warm: 1, per_tenant: 64, require_confinement: false };
  const backend = await openIsolateBackend({ workers, log: silentLog });
  const [capability] = await backend.describe();
  const started = await startRunner({
    runnerId: "bench",
    bootId: "bench",
    backends: [backend],
    trustedKeys: [signer.publicKey],
    maxConcurrent: 64,
    now: Date.now,
    log: silentLog,
  });
  const client = localClient<typeof RunnerService>(service(RunnerService, started.handlers), {
    caller: { kind: "service", name: "broker" },
  });
  const manifest = canonicalManifest(
    manifestSchema.parse({
      ...{ name: "bench.square", version: "1.0.0", description: "Squares.", impact: "low" },
      arguments: { type: "object" },
      sandbox: { kind: "isolate", code: PROGRAM.replace("input", "input.numbers") },
    }),
  );
  const argumentsJson = '{"numbers":[1,2,3]}';
  const permits: Awaited<ReturnType<typeof signer.sign>>[] = [];
  let last = 0;
  return {
    enforced: capability?.enforced ?? [],
    missing: capability?.missing ?? [],
    /** Permits are the broker's work: made before anything is measured. */
    sign: async (count: number): Promise<void> => {
      permits.length = 0;
      const ids = Array.from({ length: count }, () => `bench-${++last}`);
      permits.push(
        ...(await Promise.all(ids.map((id) => signer.sign("permit", claimsOf(id, manifest, argumentsJson))))),
      );
    },
    call: async (): Promise<void> => {
      const permit = permits.pop();
      if (permit === undefined) throw new Error("more calls were made than permits were signed");
      let result = "";
      for await (const { kind } of client.run({ permit, manifestJson: manifest.json, argumentsJson })) {
        if (kind.case === "result") result = kind.value.resultJson || kind.value.error;
      }
      if (result !== "[1,4,9]") throw new Error(`a call gave ${result}`);
    },
    residentPerWorker: async (): Promise<number> => {
      const sizes = workersOf(process.pid).map(residentBytes);
      return sizes.reduce((sum, bytes) => sum + bytes, 0) / sizes.length / 1e6;
    },
    [Symbol.asyncDispose]: () => started[Symbol.asyncDispose](),
  };
}

function claimsOf(id: string, manifest: { digest: string }, argumentsJson: string): Uint8Array {
  const claims = create(PermitClaimsSchema, {
    permitId: id,
    ref: { session: "bench", callId: id },
    principal: { tenant: "bench", agent: "bench", session: "bench", user: "" },
    ...{ tool: "bench.square", toolDigest: manifest.digest, runnerId: "bench", bootId: "bench", limits: {} },
    argumentsHash: sha256Hex(argumentsJson),
    expireTime: { seconds: BigInt(Math.floor(Date.now() / 1000) + 50), nanos: 0 },
  });
  return toBinary(PermitClaimsSchema, claims);
}

/** The processes below this one that hold isolates, whatever stands between. */
function workersOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
    .trim()
    .split(" ")
    .filter(Boolean)
    .map(Number);
  return children.flatMap((child) => (isWorker(child) ? [child] : workersOf(child)));
}

function isWorker(pid: number): boolean {
  const argv = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  return argv[0] === process.execPath && argv.includes("--permission");
}

function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

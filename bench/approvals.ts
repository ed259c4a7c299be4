import { appendFileSync, cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ApprovalsService } from "../proto/interlock/v1/approvals_pb.ts";
import { BrokerService } from "../proto/interlock/v1/broker_pb.ts";
import { GENESIS, type Head } from "../services/shared/journal/journal.ts";
import { openSqliteJournal } from "../services/shared/journal/sqlite.ts";
import { openGrpcChannel } from "../services/shared/rpc/grpc-client.ts";
import { boundRow, type Row, ratioRow, type Suite } from "./rows.ts";
import { startEcho, startGoverned } from "./servers.ts";

/** People's answers while very many calls wait: how long a click takes, and how soon its call runs. */
/** In the quick form, and with FULL=1. */
const PENDING = { quick: 1_000, full: 10_000 };
const CLICKS = 200;
const PARKING_AT_ONCE = 64;
const CALLS_PER_SESSION = 50;

export const runApprovalsSuite: Suite = async ({ full, say }) => {
  const pending = full ? PENDING.full : PENDING.quick;
  const folder = mkdtempSync(join(tmpdir(), "interlock-bench-"));
  const policies = join(folder, "policies");
  cpSync(join(import.meta.dirname, "../policies/bench"), policies, { recursive: true });
  appendFileSync(
    join(policies, "policy.csv"),
    "p, bench, *, bench.noop, require_approval, true, A person says yes., ttl=7d\n",
  );
  try {
    await using governed = await startGoverned({ policies });
    await using agentChannel = openGrpcChannel({ address: governed.address, apiKey: governed.apiKey });
    await using personChannel = openGrpcChannel({ address: governed.address, apiKey: governed.operatorKey });
    const agent = agentChannel.client(BrokerService);
    const person = personChannel.client(ApprovalsService);
    let next = 0;
    const park = async () => {
      const n = next++;
      const session = `s${Math.floor(n / CALLS_PER_SESSION)}`;
      const { call } = await agent.execute({ session, tool: "bench.noop", argumentsJson: JSON.stringify({ n }) });
      return { session, callId: call?.ref?.callId ?? "", argumentsHash: call?.argumentsHash ?? "" };
    };
    await park();
    const emptyBytes = residentBytes(governed.pid);
    const parked: Awaited<ReturnType<typeof park>>[] = [];
    const startedMs = performance.now();
    await Promise.all(
      Array.from({ length: PARKING_AT_ONCE }, async () => {
        while (next < pending + 1) parked.push(await park());
      }),
    );
    say(`${parked.length} calls parked in ${Math.round((performance.now() - startedMs) / 1000)} s`);
    const perCall = (residentBytes(governed.pid) - emptyBytes) / parked.length;
    const decide: number[] = [];
    const resume: number[] = [];
    for (const { session, callId, argumentsHash } of parked.slice(0, full ? CLICKS * 5 : CLICKS)) {
      const watching = agent.watch({ ref: { session, callId } });
      const items = watching[Symbol.asyncIterator]();
      await items.next(); // as it stands: it waits
      const clickedMs = performance.now();
      const answered = person.approve({ approvalId: callId, argumentsHash }).then(() => {
        decide.push(performance.now() - clickedMs);
      });
      await items.next(); // it goes on, or has ended
      resume.push(performance.now() - clickedMs);
      await answered;
      await items.return?.();
    }
    const base = await baseline(folder);
    const name = `${pending} pending`;
    const bytes = boundRow(name, "bytes of the process per parked call", perCall, 8_192);
    return [...rowsOf(name, decide, resume, base), bytes];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

/** Three bare grpc-js echoes and one durable append of about an event's size, ms. */
async function baseline(folder: string): Promise<{ readonly p50: number; readonly p99: number }> {
  await using echo = await startEcho();
  await using journal = openSqliteJournal({ path: join(folder, "bare.db"), synchronous: "full", readOnly: false });
  const body = Buffer.from(JSON.stringify({ kind: "voted", text: "x".repeat(400) }));
  let head: Head = GENESIS;
  const times: number[] = [];
  for (let i = 0; i < CLICKS + 50; i++) {
    const startedMs = performance.now();
    for (let n = 0; n < 3; n++) await echo.echo(body);
    head = await journal.append("bench.one", head, [{ timeMs: Date.now(), body }]);
    if (i >= 50) times.push(performance.now() - startedMs);
  }
  return { p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
}

function rowsOf(
  name: string,
  decide: readonly number[],
  resume: readonly number[],
  base: { p50: number; p99: number },
): Row[] {
  return [
    ratioRow(name, "decide p50 ms", quantile(decide, 0.5), base.p50),
    ratioRow(name, "decide p99 ms", quantile(decide, 0.99), base.p99),
    ratioRow(name, "click to start of run p50 ms", quantile(resume, 0.5), base.p50, { at: "most", ratio: 1 }),
    ratioRow(name, "click to start of run p99 ms", quantile(resume, 0.99), base.p99),
  ];
}

function quantile(values: readonly number[], at: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * at))] ?? Number.NaN;
}

function residentBytes(pid: number): number {
  const kib = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Number(kib ?? Number.NaN) * 1024;
}

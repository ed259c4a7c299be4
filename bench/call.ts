import { AgentSession } from "../examples/session.ts";
import { BrokerService, CallState } from "../proto/interlock/v1/broker_pb.ts";
import { openGrpcChannel } from "../services/shared/rpc/grpc-client.ts";
import type { Client } from "../services/shared/rpc/types.ts";
import { startNats } from "../test/support/nats.ts";
import { type Load, measure, medianOf } from "./load.ts";
import { type Row, ratioRow, type Suite } from "./rows.ts";
import { type Echo, startEcho, startGoverned } from "./servers.ts";

/**
 * What a governed call to a no-op backend costs: every stage real (identity, schema, kill switch, loops, policy,
 * budgets, permit, journal, receipt), only the tool does nothing. The baseline is a bare grpc-js unary echo.
 */
export const runCallSuite: Suite = async ({ full, say }) => {
  await using echo = await startEcho();
  const rows: Row[] = [];
  {
    await using governed = await startGoverned({});
    rows.push(...(await compare("embedded", governed, echo, EMBEDDED_GOALS, full, say)));
  }
  {
    await using nats = await startNats({ jetstream: true });
    await using governed = await startGoverned({ nats: { url: nats.url } });
    rows.push(...(await compare("nats", governed, echo, NATS_GOALS, full, say)));
  }
  return rows;
};

/** Ratios to the echo at the same concurrency; throughput of both ways in to the echo's at 64. */
type Goals = { readonly p50: number; readonly unaryThroughput: number; readonly sessionThroughput: number };
const EMBEDDED_GOALS: Goals = { p50: 3, unaryThroughput: 0.3, sessionThroughput: 0.8 };
const NATS_GOALS: Goals = { p50: 8, unaryThroughput: 0.12, sessionThroughput: 0.3 };

async function compare(
  name: string,
  at: { address: string; apiKey: string },
  echo: Echo,
  goals: Goals,
  full: boolean,
  say: (line: string) => void,
): Promise<Row[]> {
  await using channel = openGrpcChannel(at);
  const client = channel.client(BrokerService);
  await using session = new AgentSession(client, "bench-stream");
  const message = Buffer.alloc(64, 1);
  let sent = 0; // no call is like another: the guard refuses what is asked again and answered the same
  const operations: Record<string, (i: number) => Promise<unknown>> = {
    echo: () => echo.echo(message),
    unary: () => executeNoop(client, sent++),
    session: () => sessionNoop(session, sent++),
  };
  const rounds = full ? 5 : 2;
  const durationMs = full ? 4000 : 900;
  const rows: Row[] = [];
  // A server that has run for seconds, as one in service has: what the compiler has not seen yet is not what is asked.
  for (const operation of Object.values(operations)) {
    await measure(operation, { concurrency: 64, durationMs: full ? 6000 : 2000, warmUpMs: 0 });
  }
  for (const concurrency of [1, 64]) {
    const loads = new Map<string, Load[]>(Object.keys(operations).map((key) => [key, []]));
    // Interleaved, so that a neighbour's noise falls on all of them.
    for (let round = 0; round < rounds; round++) {
      for (const [key, operation] of Object.entries(operations)) {
        loads.get(key)?.push(await measure(operation, { concurrency, durationMs, warmUpMs: 200 }));
      }
    }
    const of = (key: string): Load => medianOf(loads.get(key) ?? []);
    const base = of("echo");
    for (const way of ["unary", "session"]) {
      const ours = of(way);
      const label = `${name} ${way} c=${concurrency}`;
      say(`${label}: ${ours.count} calls, p50 ${ours.p50Ms.toFixed(2)} ms`);
      const p50Goal = concurrency === 1 && way === "unary" ? { at: "most" as const, ratio: goals.p50 } : undefined;
      const least = way === "unary" ? goals.unaryThroughput : goals.sessionThroughput;
      const rateGoal = concurrency === 64 ? { at: "least" as const, ratio: least } : undefined;
      rows.push(ratioRow(label, "p50 ms", ours.p50Ms, base.p50Ms, p50Goal));
      rows.push(ratioRow(label, "p99 ms", ours.p99Ms, base.p99Ms));
      rows.push(ratioRow(label, "calls/s", ours.perSecond, base.perSecond, rateGoal));
    }
  }
  return rows;
}

export async function executeNoop(client: Client<typeof BrokerService>, i: number): Promise<void> {
  const { call } = await client.execute({
    // Several agent runs, as a fleet would have.
    session: `bench-${i % 16}`,
    tool: "bench.noop",
    argumentsJson: `{"n":${i}}`,
  });
  if (call?.state !== CallState.SUCCEEDED) throw new Error(`a no-op call ended as ${call?.state}`);
}

async function sessionNoop(session: AgentSession, i: number): Promise<void> {
  const answer = await session.call("bench.noop", `{"n":${i}}`, "").ended;
  if (answer.kind === "refused") throw answer.error;
  if (answer.call.state !== CallState.SUCCEEDED) throw new Error(`a no-op call ended as ${answer.call.state}`);
}

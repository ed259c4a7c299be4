import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { connect } from "@nats-io/transport-node";
import { v7 as uuidv7 } from "uuid";
import { DecideRequestSchema, PdpService } from "../proto/interlock/v1/pdp_pb.ts";
import { Impact, LoopVerdict } from "../proto/interlock/v1/types_pb.ts";
import { packBundle } from "../services/pdp/bundle.ts";
import { POLICIES } from "../services/pdp/fixture.ts";
import { startPdp } from "../services/pdp/service.ts";
import { openJetstreamJournal } from "../services/shared/journal/jetstream.ts";
import { silentLog } from "../services/shared/log.ts";
import { openGrpcChannel } from "../services/shared/rpc/grpc-client.ts";
import type { HandlerContext } from "../services/shared/rpc/types.ts";
import { startNats } from "../test/support/nats.ts";
import { measure, medianOf } from "./load.ts";
import { plainRow, type Row, ratioRow } from "./rows.ts";
import { startEcho, startGoverned } from "./servers.ts";

/** The policy as it is served: Decide over gRPC, and a revision's way to every replica. */

type Say = (line: string) => void;

/** One caller, one decision after another, in turns with an echo of a message of the same size. */
export async function measureOverGrpc({ full, say }: { full: boolean; say: Say }): Promise<Row[]> {
  await using echo = await startEcho();
  await using governed = await startGoverned({});
  await using channel = openGrpcChannel({ address: governed.address, apiKey: governed.operatorKey });
  const client = channel.client(PdpService);
  const facts = {
    principal: { tenant: "", agent: "bench-agent", session: "s", user: "" },
    tool: { name: "bench.noop", version: "1.0.0", impact: Impact.LOW },
    argumentsJson: "{}",
    loop: LoopVerdict.CLEAR,
    time: { seconds: 1_795_000_000n, nanos: 0 },
  };
  const message = Buffer.from(toBinary(DecideRequestSchema, create(DecideRequestSchema, { facts })));
  const load = { concurrency: 1, durationMs: full ? 3_000 : 1_200, warmUpMs: full ? 2_000 : 1_000 };
  const runs = { ours: [] as Awaited<ReturnType<typeof measure>>[], echo: [] as Awaited<ReturnType<typeof measure>>[] };
  for (let i = 0; i < 3; i++) {
    runs.echo.push(await measure(() => echo.echo(message), load));
    runs.ours.push(await measure(() => client.decide({ facts }), load));
  }
  const [ours, baseline] = [medianOf(runs.ours), medianOf(runs.echo)];
  say(`Decide over gRPC: ${ours.p50Ms.toFixed(3)} ms; echo ${baseline.p50Ms.toFixed(3)} ms`);
  return [
    ratioRow("Decide over gRPC to a bare echo", "p50 ms", ours.p50Ms, baseline.p50Ms, { at: "most", ratio: 1.3 }),
  ];
}

const REPLICAS = 3;
const PUSHES = 10;
const RULES = 1_000;
const TOOLS = Array.from({ length: RULES }, (_, i) => {
  return { name: `svc.op${i}`, version: "1.0.0", impact: "low", effects: [], groups: [] } as const;
});

/** Three replicas on one JetStream journal: from the push's arrival at one to the last of the others' switch. */
export async function measureSwitch({ say }: { say: Say }): Promise<Row[]> {
  await using stack = new AsyncDisposableStack();
  const nats = stack.use(await startNats({ jetstream: true }));
  const dir = mkdtempSync(join(tmpdir(), "interlock-bench-"));
  stack.defer(() => rmSync(dir, { recursive: true, force: true }));
  copyFileSync(join(POLICIES, "model.conf"), join(dir, "model.conf"));
  writeFileSync(join(dir, "policy.csv"), policyOf(0));
  const replicas = await Promise.all(
    Array.from({ length: REPLICAS }, async () => {
      const connection = await connect({ servers: nats.url });
      stack.defer(() => connection.close());
      const journal = stack.use(await openJetstreamJournal({ connection, replicas: 1 }));
      return stack.use(
        await startPdp({ policyDir: dir, tools: TOOLS, journal, trustedKeys: [], now: Date.now, log: silentLog }),
      );
    }),
  );
  const times: number[] = [];
  for (let i = 1; i <= PUSHES; i++) {
    const bundle = await packBundle(new Map([["policy.csv", policyOf(i)]]));
    const [first, ...others] = replicas;
    if (first === undefined) throw new Error("no replica");
    const switched = others.map(({ handlers }) => untilNumber(handlers.watchRevisions({} as never, asOperator()), i));
    const started = performance.now();
    const request = { bundle, reason: "bench", dryRun: false, baseRevision: "", changeId: uuidv7() };
    await Promise.all([first.handlers.pushPolicy(request as never, asOperator()), ...switched]);
    times.push(performance.now() - started);
  }
  const sorted = times.toSorted((a, b) => a - b);
  say(`A push is live on ${REPLICAS} replicas in ${sorted[PUSHES / 2]?.toFixed(1)} ms`);
  return [
    plainRow(`push to the last of ${REPLICAS} replicas, 1,000 rules`, "p50 ms", sorted[PUSHES / 2] ?? Number.NaN),
    plainRow(`push to the last of ${REPLICAS} replicas, 1,000 rules`, "most ms", sorted.at(-1) ?? Number.NaN),
  ];
}

function policyOf(edition: number): string {
  const rules = Array.from(
    { length: RULES },
    (_, i) => `p, bench, *, svc.op${i}, allow, true, Rule ${i} of edition ${edition}.`,
  );
  return [
    "g, user:bench, role:policy-admin, bench",
    "p, bench, role:policy-admin, policy.*, allow, true, Yes.",
    ...rules,
  ].join("\n");
}

function asOperator(): HandlerContext {
  const caller = { kind: "person", tenant: "bench", name: "bench", roles: ["operator"], groups: [] } as const;
  return { caller, signal: new AbortController().signal, deadlineMs: undefined, traceParent: "", method: "" };
}

async function untilNumber(revisions: AsyncIterable<{ number?: number }>, wanted: number): Promise<void> {
  for await (const { number } of revisions) if (number === wanted) return;
}

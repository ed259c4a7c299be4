import { create, toBinary } from "@bufbuild/protobuf";
import {
  BrokerService,
  CallState,
  ExecuteRequestSchema,
  type ExecuteResponse,
  ExecuteResponseSchema,
} from "../proto/interlock/v1/broker_pb.ts";
import { openGrpcChannel } from "../services/shared/rpc/grpc-client.ts";
import { type Row, ratioRow } from "./rows.ts";
import { startGoverned } from "./servers.ts";

/**
 * Twenty calls as a program in an isolate makes them, each through the whole pipeline, beside the same twenty made one
 * by one over gRPC: how long they take, and how many bytes of messages the agent sends and gets.
 */
export async function runNestedCase(full: boolean, say: (line: string) => void): Promise<Row[]> {
  await using governed = await startGoverned({});
  await using channel = openGrpcChannel(governed);
  const client = channel.client(BrokerService);
  let bytes = 0;
  let last = 0;
  const execute = async (tool: string, args: object): Promise<ExecuteResponse> => {
    const request = create(ExecuteRequestSchema, {
      ...{ session: `nested-${Math.floor(last++ / 100)}`, tool, argumentsJson: JSON.stringify(args) },
    });
    const response = await client.execute(request);
    if (response.call?.state !== CallState.SUCCEEDED)
      throw new Error(`${tool} failed: ${response.call?.result?.error}`);
    bytes += toBinary(ExecuteRequestSchema, request).length + toBinary(ExecuteResponseSchema, response).length;
    return response;
  };
  const oneByOne = async (): Promise<void> => {
    for (let i = 0; i < CALLS; i++) await execute("bench.noop", { n: last });
  };
  const nested = (how: string) => async (): Promise<void> => {
    const { call } = await execute("bench.script", { program: how, n: last });
    if (call?.result?.resultJson !== String(CALLS)) throw new Error(`the program gave ${call?.result?.resultJson}`);
  };
  const ways: Record<string, () => Promise<void>> = {
    "one by one over gRPC": oneByOne,
    "20 nested, in turn": nested(IN_TURN),
    "20 nested, at once": nested(AT_ONCE),
  };
  const rounds = full ? 60 : 15;
  const times = new Map<string, { ms: number[]; bytes: number }>();
  for (let round = -5; round < rounds; round++) {
    for (const [name, way] of Object.entries(ways)) {
      bytes = 0;
      const started = performance.now();
      await way();
      const found = times.get(name) ?? { ms: [], bytes: 0 };
      if (round >= 0) found.ms.push(performance.now() - started); // the first are for the compiler
      times.set(name, { ...found, bytes });
    }
  }
  const of = (name: string) => {
    const { ms = [], bytes: size = 0 } = times.get(name) ?? {};
    return { ms: ms.sort((a, b) => a - b)[Math.floor(ms.length / 2)] ?? Number.NaN, bytes: size };
  };
  const base = of("one by one over gRPC");
  return Object.keys(ways)
    .slice(1)
    .flatMap((name) => {
      const ours = of(name);
      say(
        `${name}: ${ours.ms.toFixed(1)} ms, ${ours.bytes} bytes; one by one ${base.ms.toFixed(1)} ms, ${base.bytes} bytes`,
      );
      return [ratioRow(name, "ms p50", ours.ms, base.ms), ratioRow(name, "bytes to and from", ours.bytes, base.bytes)];
    });
}

const CALLS = 20;
const IN_TURN = `for (let n = 0; n < ${CALLS}; n++) await tools.bench.noop({ n, of: input }); return ${CALLS};`;
const AT_ONCE = `const all = Array.from({ length: ${CALLS} }, (_, n) => tools.bench.noop({ n, of: input })); return (await Promise.all(all)).length;`;

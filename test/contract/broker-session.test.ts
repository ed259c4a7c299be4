import type { MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import type { SessionRequestSchema, SessionResponse } from "../../proto/interlock/v1/broker_pb.ts";
import { RpcError } from "../../services/shared/rpc/errors.ts";
import { fromStatus } from "../../services/shared/rpc/status.ts";
import type { Caller } from "../../services/shared/rpc/types.ts";
import { AGENT, newWorld, OPERATOR, OTHER_AGENT, refusalOf, SOON, settled, stateOf } from "./broker-fixture.ts";

/** One agent run over one stream. */

type Request = MessageInitShape<typeof SessionRequestSchema>;

/** One end of the stream, as a client holds it. */
class Stream {
  readonly seen: string[] = [];
  readonly responses: SessionResponse[] = [];
  /** How the stream ended, once it has. */
  readonly ended: Promise<RpcError | undefined>;
  readonly #gone = new AbortController();
  #unsent: Request[] = [];
  #closed = false;
  #wake: () => void = () => {};

  constructor(open: (requests: AsyncIterable<Request>, signal: AbortSignal) => AsyncIterable<SessionResponse>) {
    this.ended = this.#read(open(this.#requests(), this.#gone.signal));
  }

  send(...kinds: readonly Request["kind"][]): void {
    for (const kind of kinds) this.#unsent.push(kind === undefined ? {} : { kind });
    this.#wake();
  }

  call(
    requestId: number,
    tool: string,
    args: object = {},
    more: { readonly idempotencyKey?: string; readonly progress?: boolean } = {},
  ) {
    const value = { requestId: BigInt(requestId), tool, argumentsJson: JSON.stringify(args), ...more };
    this.send({ case: "call", value });
  }

  cancel(requestId: number): void {
    this.send({ case: "cancel", value: { requestId: BigInt(requestId) } });
  }

  /** Sends no more. */
  close(): void {
    this.#closed = true;
    this.#wake();
  }

  goAway(): void {
    this.#gone.abort();
  }

  /** What was answered to one request, in order. */
  to(requestId: number): string[] {
    return this.seen
      .filter((line) => line.startsWith(`${requestId} `))
      .map((line) => line.slice(`${requestId} `.length));
  }

  async *#requests(): AsyncGenerator<Request> {
    for (;;) {
      const ready = this.#unsent;
      this.#unsent = [];
      yield* ready;
      if (this.#unsent.length > 0) continue;
      if (this.#closed) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  async #read(responses: AsyncIterable<SessionResponse>): Promise<RpcError | undefined> {
    try {
      for await (const response of responses) {
        this.responses.push(response);
        this.seen.push(`${response.requestId} ${shown(response)}`);
      }
      return undefined;
    } catch (error) {
      return RpcError.from(error);
    }
  }
}

function shown({ kind }: SessionResponse): string {
  switch (kind.case) {
    case "opened":
      return `opened ${kind.value.principal?.tenant}/${kind.value.principal?.agent}/${kind.value.principal?.session}`;
    case "call":
      return stateOf(kind.value);
    case "error":
      return `${fromStatus(kind.value).reason} ${fromStatus(kind.value).field ?? ""}`.trim();
    case "event":
      return `event ${kind.value.kind.case === "stage" ? kind.value.kind.value.stage : kind.value.kind.value?.text}`;
    case undefined:
      return "nothing";
  }
}

async function openStream(caller: Caller = AGENT, session: string | undefined = "s1") {
  const world = await newWorld();
  const replica = await world.startBroker();
  const connect = (as: Caller) => new Stream((requests, signal) => replica.as(as).session(requests, { signal }));
  const stream = connect(caller);
  if (session !== "") stream.send({ case: "open", value: { session } });
  return { world, replica, stream, connect };
}

describe("opening", () => {
  test("says who the session's calls are made by", async () => {
    const { stream } = await openStream();
    await expect.poll(() => stream.seen, SOON).toEqual(["0 opened demo/demo-agent/s1"]);
    stream.close();
    expect(await stream.ended).toBeUndefined();
  });

  test("comes first: a call before it is refused, and the stream goes on", async () => {
    const { world, stream } = await openStream(AGENT, "");
    stream.call(1, "t.echo");
    stream.send({ case: "open", value: { session: "s1" } });
    stream.call(1, "t.echo");
    await expect
      .poll(() => stream.seen, SOON)
      .toEqual(["1 FIELD_INVALID open", "0 opened demo/demo-agent/s1", "1 SUCCEEDED"]);
    expect(world.sandbox.ran).toHaveLength(1);
  });

  test.each<[string, Caller, readonly Request["kind"][], string, string]>([
    ["twice", AGENT, [{ case: "open", value: { session: "s1" } }], "FIELD_INVALID", "open"],
    ["with what is no request", AGENT, [undefined], "FIELD_INVALID", "kind"],
  ])("%s ends the stream with an error", async (_, caller, requests, reason, field) => {
    const { stream } = await openStream(caller);
    stream.send(...requests);
    expect(await stream.ended).toMatchObject({ code: "INVALID_ARGUMENT", reason, field });
  });

  test.each([
    ["no session", AGENT, "FIELD_MISSING"],
    ["a session of another shape", AGENT, "FIELD_INVALID"],
    ["a person", OPERATOR, "AGENTS_ONLY"],
  ])("by %s ends the stream with an error", async (who, caller, reason) => {
    const { stream } = await openStream(caller, "");
    const session = who === "no session" ? "" : who === "a person" ? "s1" : "a.b";
    stream.send({ case: "open", value: { session } });
    expect(await stream.ended).toMatchObject({ reason, metadata: { stage: "authenticate" } });
  });
});

describe("calls", () => {
  test("many are in flight, each answered by its number", async () => {
    const { world, stream } = await openStream();
    const numbers = Array.from({ length: 1_000 }, (_, i) => i + 1);
    for (const n of numbers) stream.call(n, "t.echo", { n });
    stream.close();
    expect(await stream.ended).toBeUndefined();
    const results = new Map(
      stream.responses.map(({ requestId, kind }) => [
        Number(requestId),
        kind.case === "call" ? kind.value.result?.resultJson : "",
      ]),
    );
    for (const n of numbers) expect(results.get(n)).toBe(`{"n":${n}}`);
    expect(world.sandbox.ran).toHaveLength(1_000);
  });

  test("are answered as they end, not as they came", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.held");
    stream.call(2, "t.echo");
    await expect.poll(() => stream.to(2), SOON).toEqual(["SUCCEEDED"]);
    expect(stream.to(1)).toEqual([]);
    world.sandbox.letGo();
    await expect.poll(() => stream.to(1), SOON).toEqual(["SUCCEEDED"]);
  });

  test("a refusal is an answer, and the stream goes on", async () => {
    const { stream } = await openStream();
    stream.call(1, "t.never");
    stream.call(2, "t.gone");
    stream.call(3, "t.echo", { n: "x" });
    stream.call(4, "t.echo");
    await expect
      .poll(() => [1, 2, 3, 4].map((n) => stream.to(n)), SOON)
      .toEqual([["POLICY_DENIED"], ["TOOL_UNKNOWN tool"], ["ARGUMENTS_INVALID arguments_json.n"], ["SUCCEEDED"]]);
  });

  test("a number that a call at work has, or 0, is refused; that of a call that has ended is not", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.held");
    stream.call(1, "t.echo");
    stream.call(0, "t.echo");
    await expect
      .poll(() => [stream.to(1), stream.to(0).slice(1)], SOON)
      .toEqual([["FIELD_INVALID request_id"], ["FIELD_INVALID request_id"]]);
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    world.sandbox.letGo();
    await expect.poll(() => stream.to(1).at(-1), SOON).toBe("SUCCEEDED");
    stream.call(1, "t.echo");
    await expect.poll(() => stream.to(1), SOON).toEqual(["FIELD_INVALID request_id", "SUCCEEDED", "SUCCEEDED"]);
    expect(world.sandbox.runsOf("t.echo")).toBe(1);
  });
});

describe("calls of one session", () => {
  test("tell what happens when they are asked to", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.held", {}, { progress: true });
    stream.call(2, "t.echo");
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    world.sandbox.letGo();
    await expect.poll(() => stream.to(1).at(-1), SOON).toBe("SUCCEEDED");
    expect(stream.to(1).slice(0, -1)).toEqual([
      ...["event guard", "event decide", "event reserve", "event permit", "event run"],
      ...["event started [masked]", "event filter", "event settle"],
    ]);
    expect(stream.to(2)).toEqual(["SUCCEEDED"]);
  });

  test("repeated by their key are one call, also between streams", async () => {
    const { world, stream, connect } = await openStream();
    const other = connect(AGENT);
    other.send({ case: "open", value: { session: "s1" } });
    for (const one of [stream, other]) for (const n of [1, 2]) one.call(n, "t.held", {}, { idempotencyKey: "k" });
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    world.sandbox.letGo();
    for (const one of [stream, other]) {
      for (const n of [1, 2]) await expect.poll(() => one.to(n), SOON).toEqual(["SUCCEEDED"]);
    }
    expect(world.sandbox.ran).toHaveLength(1);
  });

  test("of another agent in this session are refused", async () => {
    const { stream, connect } = await openStream();
    stream.call(1, "t.echo");
    await expect.poll(() => stream.to(1), SOON).toEqual(["SUCCEEDED"]);
    const other = connect(OTHER_AGENT);
    other.send({ case: "open", value: { session: "s1" } });
    other.call(1, "t.echo", { n: 1 });
    await expect.poll(() => other.to(1), SOON).toEqual(["SESSION_FOREIGN session"]);
  });
});

describe("a call that people are asked about", () => {
  test("is answered twice: that it waits, and how it ended", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.ask");
    await expect.poll(() => stream.to(1), SOON).toEqual(["PENDING_APPROVAL"]);
    stream.call(1, "t.echo");
    await expect.poll(() => stream.to(1), SOON).toEqual(["PENDING_APPROVAL", "FIELD_INVALID request_id"]);
    const [approval] = (await world.reviewer.listApprovals({})).approvals;
    await world.reviewer.approve({
      approvalId: approval?.approvalId ?? "",
      argumentsHash: approval?.argumentsHash ?? "",
    });
    await expect.poll(() => stream.to(1).at(-1), SOON).toBe("SUCCEEDED");
  });

  test("ends with the refusal of those who said no", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.ask");
    await expect.poll(() => stream.to(1), SOON).toEqual(["PENDING_APPROVAL"]);
    const [approval] = (await world.reviewer.listApprovals({})).approvals;
    await world.reviewer.reject({ approvalId: approval?.approvalId ?? "" });
    await expect.poll(() => stream.to(1), SOON).toEqual(["PENDING_APPROVAL", "REFUSED"]);
  });

  test("goes on waiting when the stream ends", async () => {
    const { world, replica, stream } = await openStream();
    stream.call(1, "t.ask");
    stream.close();
    expect(await stream.ended).toBeUndefined();
    expect(stream.to(1)).toEqual(["PENDING_APPROVAL"]);
    const [approval] = (await world.reviewer.listApprovals({})).approvals;
    await world.reviewer.approve({
      approvalId: approval?.approvalId ?? "",
      argumentsHash: approval?.argumentsHash ?? "",
    });
    const ref = { session: "s1", callId: approval?.approvalId ?? "" };
    await expect.poll(async () => stateOf((await replica.as(AGENT).get({ ref })).call), SOON).toBe("SUCCEEDED");
  });
});

describe("cancelling", () => {
  test("ends a call that runs", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.held");
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    stream.cancel(1);
    await expect.poll(() => stream.to(1), SOON).toEqual(["CANCELLED"]);
    expect(world.sandbox.holding).toBe(0);
    await settled(world, { s1: "100/0" });
  });

  test("ends a call that waits for people, and what it held", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.ask");
    await expect.poll(() => stream.to(1), SOON).toEqual(["PENDING_APPROVAL"]);
    stream.cancel(1);
    await expect.poll(() => stream.to(1), SOON).toEqual(["PENDING_APPROVAL", "CANCELLED"]);
    await settled(world, { s1: "0/0" });
  });

  test("in the same breath as the call runs nothing, or ends what runs", async () => {
    const { world, stream } = await openStream();
    for (let n = 1; n <= 20; n++) {
      stream.call(n, "t.held", { n });
      stream.cancel(n);
    }
    for (let n = 1; n <= 20; n++) await expect.poll(() => stream.to(n), SOON).toEqual(["CANCELLED"]);
    await expect.poll(async () => (await world.money())["s1"] ?? "0/0", SOON).toMatch(/\/0$/);
    expect(world.sandbox.holding).toBe(0);
  });

  test("what is not there does nothing", async () => {
    const { stream } = await openStream();
    stream.cancel(7);
    stream.call(7, "t.echo");
    await expect.poll(() => stream.to(7), SOON).toEqual(["SUCCEEDED"]);
    stream.cancel(7);
    stream.close();
    expect(await stream.ended).toBeUndefined();
  });
});

describe("the end of a stream", () => {
  test("that sends no more is answered what is at work, and then ended", async () => {
    const { world, stream } = await openStream();
    stream.call(1, "t.held");
    stream.close();
    await expect.poll(() => world.sandbox.holding, SOON).toBe(1);
    world.sandbox.letGo();
    expect(await stream.ended).toBeUndefined();
    expect(stream.to(1)).toEqual(["SUCCEEDED"]);
  });

  test("whose client goes away kills what runs and leaves what waits", async () => {
    const { world, replica, stream } = await openStream();
    stream.call(1, "t.held");
    stream.call(2, "t.ask");
    await expect.poll(() => [world.sandbox.holding, stream.to(2)], SOON).toEqual([1, ["PENDING_APPROVAL"]]);
    stream.goAway();
    expect(await stream.ended).toMatchObject({ code: "CANCELLED" });
    await expect.poll(() => world.sandbox.holding, SOON).toBe(0);
    const state = async (callId: string) =>
      stateOf((await replica.as(AGENT).get({ ref: { session: "s1", callId } })).call);
    await expect.poll(() => state(world.sandbox.ran[0]?.callId ?? ""), SOON).toBe("CANCELLED");
    const [approval] = (await world.reviewer.listApprovals({})).approvals;
    expect(await state(approval?.approvalId ?? "")).toBe("PENDING_APPROVAL");
  });

  test("leaves nothing of it for others to trip over", async () => {
    const { stream, connect } = await openStream();
    stream.goAway();
    await stream.ended;
    const other = connect(AGENT);
    other.send({ case: "open", value: { session: "s1" } });
    other.call(1, "t.echo");
    await expect.poll(() => other.to(1), SOON).toEqual(["SUCCEEDED"]);
  });
});

test("an agent that takes no answers is not read from without end", async () => {
  const { world, replica } = await openStream();
  let sent = 0;
  async function* flood(): AsyncGenerator<Request> {
    yield { kind: { case: "open", value: { session: "s2" } } };
    for (;;)
      yield {
        kind: { case: "call", value: { requestId: BigInt(++sent), tool: "t.held", argumentsJson: `{"n":${sent}}` } },
      };
  }
  const gone = new AbortController();
  const responses = replica.as(AGENT).session(flood(), { signal: gone.signal })[Symbol.asyncIterator]();
  await responses.next();
  await expect.poll(() => world.sandbox.holding, SOON).toBe(10); // the budget's worth; the others are refused
  await expect.poll(async () => (await world.records("s2")).length, SOON).toBeGreaterThan(1_000);
  expect(sent).toBeLessThan(2_000);
  gone.abort();
  expect(await refusalOf(responses.next())).toMatchObject({ code: "CANCELLED" });
});

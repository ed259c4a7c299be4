import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { Code, type CodeName, RpcError } from "../../services/shared/rpc/errors.ts";
import { service } from "../../services/shared/rpc/service.ts";
import type { Caller, HandlerContext } from "../../services/shared/rpc/types.ts";
import { refusalOf } from "../support/clients.ts";
import { EchoService, LaterSayRequestSchema, SayRequestSchema } from "./proto/interlock/test/v1/echo_pb.ts";
import {
  type Connect,
  type Connected,
  collect,
  ECHO,
  type EchoHandlers,
  type Transport,
  untilAborted,
} from "./rpc-echo.ts";
import { describeBidi, describeFlow, describeServerStreams } from "./rpc-streams.ts";

const AGENT: Caller = { kind: "agent", tenant: "demo", agent: "demo-agent" };
const TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

export function describeTransport(transport: Transport): void {
  const connect = (handlers: Partial<EchoHandlers>): Promise<Connected> =>
    transport.connect(service(EchoService, { ...ECHO, ...handlers }), AGENT);

  describe(`rpc over ${transport.name}`, () => {
    describeUnary(connect);
    describeErrors(connect);
    describeEndings(connect);
    describeContext(connect);
    describeServerStreams(connect);
    describeBidi(connect);
    describeFlow(connect);
    if (transport.maxMessageBytes !== undefined) describeSizes(connect, transport.maxMessageBytes);
  });
}

function describeUnary(connect: Connect): void {
  it("answers", async () => {
    await using echo = await connect({});
    expect((await echo.client.say({ text: "grüß Gott" })).text).toBe("grüß Gott");
  });

  it("answers with an empty message", async () => {
    await using echo = await connect({ say: async () => ({}) });
    expect((await echo.client.say({ text: "say nothing" })).text).toBe("");
  });

  it("gives each of many calls in flight its own answer", async () => {
    await using echo = await connect({});
    const texts = Array.from({ length: 200 }, (_, index) => `call ${index}`);
    const answers = await Promise.all(texts.map((text) => echo.client.say({ text })));
    expect(answers.map(({ text }) => text)).toEqual(texts);
  });

  it("tolerates fields of a later contract", async () => {
    await using echo = await connect({});
    const later = toBinary(LaterSayRequestSchema, {
      $typeName: "interlock.test.v1.LaterSayRequest",
      text: "known",
      addedLater: "unknown",
    });
    expect((await echo.client.say(fromBinary(SayRequestSchema, later))).text).toBe("known");
  });
}

function describeErrors(connect: Connect): void {
  const codes = Object.keys(Code).filter((code): code is CodeName => code !== "OK");
  it.each(codes)("carries %s with all that it says", async (code) => {
    const said = {
      code,
      reason: "ECHO_REFUSED",
      message: `Refused, with ${code} – say "please".`,
      field: "text",
      metadata: { stage: "reserve", call_id: "01900000" },
      retryAfterMs: 1_250,
    };
    await using echo = await connect({ say: () => Promise.reject(new RpcError(said)) });
    expect(await refusalOf(echo.client.say({ text: "" }))).toMatchObject(said);
  });

  it("carries a refusal that says nothing but its reason", async () => {
    const said = { code: "NOT_FOUND", reason: "NO_ECHO", message: "There is no echo here." } as const;
    await using echo = await connect({ say: () => Promise.reject(new RpcError(said)) });
    const refusal = await refusalOf(echo.client.say({ text: "" }));
    expect(refusal).toMatchObject({ ...said, field: undefined, retryAfterMs: undefined, metadata: {} });
  });

  it.each<[string, Partial<EchoHandlers>]>([
    ["throws", { say: () => Promise.reject(new Error("the password is 1234")) }],
    [
      "throws before it returns a promise",
      {
        say: () => {
          throw new TypeError("the password is 1234");
        },
      },
    ],
    ["throws no Error", { say: () => Promise.reject("the password is 1234") }],
  ])("hides the text of a handler's bug that %s", async (_, handlers) => {
    await using echo = await connect(handlers);
    const refusal = await refusalOf(echo.client.say({ text: "" }));
    expect(refusal).toMatchObject({ code: "INTERNAL", reason: "INTERNAL" });
    expect(refusal.message).not.toContain("1234");
  });

  it("hides the text of a streaming handler's bug", async () => {
    await using echo = await connect({
      // biome-ignore lint/correctness/useYield: it fails before it has anything to yield
      async *count() {
        throw new Error("the password is 1234");
      },
    });
    const refusal = await refusalOf(collect(echo.client.count({ to: 1 })));
    expect(refusal).toMatchObject({ code: "INTERNAL", reason: "INTERNAL" });
    expect(refusal.message).not.toContain("1234");
  });
}

function describeEndings(connect: Connect): void {
  it("tells handler and caller of a deadline", async () => {
    const ended = Promise.withResolvers<unknown>();
    await using echo = await connect({ say: (_, { signal }) => untilAborted(signal, ended.resolve) });
    const refusal = await refusalOf(echo.client.say({ text: "" }, { deadlineMs: Date.now() + 150 }));
    expect([refusal.code, refusal.reason]).toEqual(["DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"]);
    expect(await ended.promise).toMatchObject({ name: "TimeoutError" });
  });

  it("answers the caller at the deadline though the handler ignores it", async () => {
    const released = Promise.withResolvers<void>();
    const deaf = async () => {
      await released.promise;
      return { text: "too late" };
    };
    await using echo = await connect({ say: deaf });
    const refusal = await refusalOf(echo.client.say({ text: "" }, { deadlineMs: Date.now() + 100 }));
    released.resolve();
    expect(refusal.code).toBe("DEADLINE_EXCEEDED");
  });

  it("refuses a call whose deadline has passed", async () => {
    await using echo = await connect({});
    const refusal = await refusalOf(echo.client.say({ text: "" }, { deadlineMs: Date.now() - 1 }));
    expect(refusal.code).toBe("DEADLINE_EXCEEDED");
  });

  it("ends a stream at its deadline", async () => {
    const ended = Promise.withResolvers<unknown>();
    await using echo = await connect({
      async *count(_, { signal }) {
        yield { number: 1 };
        await untilAborted(signal, ended.resolve);
      },
    });
    const refusal = await refusalOf(collect(echo.client.count({ to: 9 }, { deadlineMs: Date.now() + 150 })));
    expect(refusal.code).toBe("DEADLINE_EXCEEDED");
    expect(await ended.promise).toMatchObject({ name: "TimeoutError" });
  });

  it("tells handler and caller of a cancellation", async () => {
    const entered = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<unknown>();
    await using echo = await connect({
      say: (_, { signal }) => {
        entered.resolve();
        return untilAborted(signal, ended.resolve);
      },
    });
    const controller = new AbortController();
    const refusal = refusalOf(echo.client.say({ text: "" }, { signal: controller.signal }));
    await entered.promise;
    controller.abort();
    expect([(await refusal).code, (await refusal).reason]).toEqual(["CANCELLED", "CANCELLED"]);
    expect(await ended.promise).toMatchObject({ name: "AbortError" });
  });

  it("does not start a call that was cancelled before", async () => {
    await using echo = await connect({});
    const signal = AbortSignal.abort();
    expect((await refusalOf(echo.client.say({ text: "" }, { signal }))).code).toBe("CANCELLED");
    expect((await refusalOf(collect(echo.client.count({ to: 3 }, { signal })))).code).toBe("CANCELLED");
  });

  it("cancels a stream whose reader waits", async () => {
    const ended = Promise.withResolvers<unknown>();
    await using echo = await connect({
      async *count(_, { signal }) {
        yield { number: 1 };
        await untilAborted(signal, ended.resolve);
      },
    });
    const controller = new AbortController();
    const answers = echo.client.count({ to: 2 }, { signal: controller.signal })[Symbol.asyncIterator]();
    await answers.next();
    const refusal = refusalOf(answers.next());
    controller.abort();
    expect((await refusal).code).toBe("CANCELLED");
    expect(await ended.promise).toMatchObject({ name: "AbortError" });
  });
}

function describeContext(connect: Connect): void {
  const contextOf = async (options: Parameters<Connected["client"]["say"]>[1]): Promise<HandlerContext> => {
    const seen = Promise.withResolvers<HandlerContext>();
    await using echo = await connect({
      say: async (_, context) => {
        seen.resolve(context);
        return {};
      },
    });
    await echo.client.say({ text: "" }, options);
    return await seen.promise;
  };

  it("says who calls, and what", async () => {
    const context = await contextOf({});
    expect(context.caller).toEqual(AGENT);
    expect(context.method).toBe("interlock.test.v1.EchoService/Say");
    expect(context.deadlineMs).toBeUndefined();
    expect(context.signal.aborted).toBe(false);
  });

  it("passes the deadline on", async () => {
    const deadlineMs = Date.now() + 600_000;
    const { deadlineMs: seen = 0 } = await contextOf({ deadlineMs });
    // A wire carries what is left of it, so clocks and a slow machine show.
    expect(Math.abs(seen - deadlineMs)).toBeLessThan(60_000);
  });

  it("takes a deadline beyond any timer for none that passes", async () => {
    await contextOf({ deadlineMs: Date.now() + 400 * 24 * 3_600_000 });
  });

  it("passes the trace on, and begins one where there is none", async () => {
    expect((await contextOf({ traceParent: TRACE })).traceParent).toBe(TRACE);
    expect((await contextOf({})).traceParent).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/);
  });
}

function describeSizes(connect: Connect, maxMessageBytes: number): void {
  const tooLarge = { code: "RESOURCE_EXHAUSTED", reason: "MESSAGE_TOO_LARGE" };

  it("refuses a request that is too large, and goes on", async () => {
    await using echo = await connect({});
    expect(await refusalOf(echo.client.say({ text: "x".repeat(maxMessageBytes) }))).toMatchObject(tooLarge);
    const half = "x".repeat(maxMessageBytes / 2);
    expect((await echo.client.say({ text: half })).text).toBe(half);
  });

  it("refuses an answer that is too large, and goes on", async () => {
    await using echo = await connect({ say: async ({ text }) => ({ text: text.repeat(maxMessageBytes) }) });
    expect(await refusalOf(echo.client.say({ text: "x" }))).toMatchObject(tooLarge);
    expect((await echo.client.say({ text: "" })).text).toBe("");
  });

  it("ends a stream with an answer that is too large", async () => {
    await using echo = await connect({
      async *count() {
        yield { padding: new Uint8Array(maxMessageBytes + 1) };
      },
    });
    expect(await refusalOf(collect(echo.client.count({ to: 1 })))).toMatchObject(tooLarge);
  });
}

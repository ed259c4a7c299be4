import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import { RpcError } from "../../services/shared/rpc/errors.ts";
import { refusalOf } from "../support/clients.ts";
import { type Connect, collect, texts } from "./rpc-echo.ts";

/** More messages than any transport's buffers hold, and what those may hold. */
const MANY = 2_000;
const MOST_AHEAD = 256;
const PADDING = new Uint8Array(4096);

export function describeServerStreams(connect: Connect): void {
  it("streams in order, to the end", async () => {
    await using echo = await connect({});
    const numbers = (await collect(echo.client.count({ to: 100 }))).map(({ number }) => number);
    expect(numbers).toEqual(Array.from({ length: 100 }, (_, index) => index + 1));
    expect(await collect(echo.client.count({ to: 0 }))).toEqual([]);
  });

  it("ends with the error that comes midway", async () => {
    const read = Promise.withResolvers<void>();
    const said = { code: "ABORTED", reason: "ECHO_LOST", message: "The echo was lost.", field: "to" } as const;
    await using echo = await connect({
      async *count() {
        yield { number: 1 };
        await read.promise;
        throw new RpcError(said);
      },
    });
    const answers = echo.client.count({ to: 2 })[Symbol.asyncIterator]();
    expect(await answers.next()).toMatchObject({ done: false, value: { number: 1 } });
    read.resolve();
    expect(await refusalOf(answers.next())).toMatchObject(said);
    expect(await answers.next()).toEqual({ done: true, value: undefined });
  });

  it("ends the handler when its reader leaves", async () => {
    const ended = Promise.withResolvers<void>();
    const aborted = Promise.withResolvers<unknown>();
    await using echo = await connect({
      async *count(_, { signal }) {
        signal.addEventListener("abort", () => aborted.resolve(signal.reason));
        try {
          for (let number = 1; ; number += 1) {
            await setImmediate();
            yield { number };
          }
        } finally {
          ended.resolve();
        }
      },
    });
    for await (const { number } of echo.client.count({ to: 9 })) if (number === 3) break;
    await ended.promise;
    expect(await aborted.promise).toMatchObject({ name: "AbortError" });
  });
}

export function describeBidi(connect: Connect): void {
  it("answers each request as it comes", async () => {
    await using echo = await connect({});
    const answered: string[] = [];
    let next = Promise.withResolvers<string | undefined>();
    async function* requests() {
      for (;;) {
        const text = await next.promise;
        if (text === undefined) return;
        next = Promise.withResolvers();
        yield { text };
      }
    }
    next.resolve("a");
    for await (const { text } of echo.client.chat(requests())) {
      answered.push(text);
      next.resolve(text.length < 4 ? `${text}a` : undefined);
    }
    expect(answered).toEqual(["a", "aa", "aaa", "aaaa"]);
  });

  it("lets the handler say the last word after the requests are over", async () => {
    await using echo = await connect({
      async *chat(requests) {
        const texts: string[] = [];
        for await (const { text } of requests) texts.push(text);
        yield { text: texts.join(" ") };
      },
    });
    const answers = await collect(echo.client.chat(texts("one", "two")));
    expect(answers.map(({ text }) => text)).toEqual(["one two"]);
  });

  it("stops asking for requests when the handler is done", async () => {
    const closed = Promise.withResolvers<void>();
    await using echo = await connect({
      async *chat(requests) {
        for await (const { text } of requests) {
          yield { text };
          return;
        }
      },
    });
    async function* endless() {
      try {
        for (;;) {
          yield { text: "again" };
          await setImmediate();
        }
      } finally {
        closed.resolve();
      }
    }
    expect(await collect(echo.client.chat(endless()))).toHaveLength(1);
    await closed.promise;
  });

  it("goes on answering after the handler has stopped reading", async () => {
    await using echo = await connect({
      async *chat(requests) {
        for await (const _ of requests) break;
        for (const text of ["still", "here"]) {
          await setImmediate();
          yield { text };
        }
      },
    });
    const answers = await collect(echo.client.chat(texts("one", "two", "three")));
    expect(answers.map(({ text }) => text)).toEqual(["still", "here"]);
  });

  it("ends the call when the caller's requests fail", async () => {
    const ended = Promise.withResolvers<unknown>();
    await using echo = await connect({
      async *chat(requests, { signal }) {
        signal.addEventListener("abort", () => ended.resolve(undefined));
        for await (const { text } of requests) yield { text };
      },
    });
    const answered = Promise.withResolvers<void>();
    async function* failing() {
      yield { text: "one" };
      await answered.promise;
      throw new RpcError({ code: "DATA_LOSS", reason: "SOURCE_LOST", message: "The source is gone." });
    }
    const answers = echo.client.chat(failing())[Symbol.asyncIterator]();
    await answers.next();
    answered.resolve();
    expect(await refusalOf(answers.next())).toMatchObject({ reason: "SOURCE_LOST" });
    await ended.promise;
  });
}

export function describeFlow(connect: Connect): void {
  it("does not let a handler run ahead of a slow reader", async () => {
    let made = 0;
    await using echo = await connect({
      async *count({ to }) {
        for (; made < to; made += 1) yield { number: made, padding: PADDING };
      },
    });
    let read = 0;
    let mostAhead = 0;
    for await (const { number } of echo.client.count({ to: MANY })) {
      expect(number).toBe(read);
      read += 1;
      mostAhead = Math.max(mostAhead, made - read);
      for (let turn = 0; turn < 3; turn += 1) await setImmediate();
    }
    expect(read).toBe(MANY);
    expect(mostAhead).toBeLessThan(MOST_AHEAD);
  });

  it("does not let a caller's requests run ahead of a slow handler", async () => {
    let made = 0;
    let mostAhead = 0;
    await using echo = await connect({
      async *chat(requests) {
        let read = 0;
        for await (const _ of requests) {
          read += 1;
          mostAhead = Math.max(mostAhead, made - read);
          for (let turn = 0; turn < 3; turn += 1) await setImmediate();
        }
        yield { text: String(read) };
      },
    });
    const text = "x".repeat(PADDING.length);
    async function* requests() {
      for (; made < MANY; made += 1) yield { text };
    }
    expect((await collect(echo.client.chat(requests()))).map((answer) => answer.text)).toEqual([String(MANY)]);
    expect(mostAhead).toBeLessThan(MOST_AHEAD);
  });
}

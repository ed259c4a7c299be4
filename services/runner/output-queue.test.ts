import fc from "fast-check";
import { expect, it } from "vitest";
import { type OutputChunk, OutputQueue } from "./output-queue.ts";

it("gives all that was pushed, in order, however pushes and reads alternate, and then ends", async () => {
  const turns = fc.array(fc.array(fc.string(), { maxLength: 4 }), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(turns, async (pushes) => {
      const queue = new OutputQueue();
      const got: OutputChunk[] = [];
      const reading = (async () => {
        for await (const chunk of queue) got.push(chunk);
      })();
      for (const texts of pushes) {
        for (const text of texts) queue.push("stdout", text);
        await Promise.resolve();
      }
      queue.close();
      await reading;
      expect(got).toEqual(pushes.flat().map((text) => ({ stream: "stdout", text })));
    }),
  );
});

it("gives what came before anybody read, and keeps the streams apart", async () => {
  const queue = new OutputQueue();
  queue.push("stderr", "a");
  queue.push("stdout", "b");
  queue.close();
  expect(await Array.fromAsync(queue)).toEqual([
    { stream: "stderr", text: "a" },
    { stream: "stdout", text: "b" },
  ]);
});

import fc from "fast-check";
import { expect, it } from "vitest";
import { RunQueue } from "./run-queue.ts";

it("gives all that was pushed, in order, however pushes and reads alternate, and then ends", async () => {
  const turns = fc.array(fc.array(fc.string(), { maxLength: 4 }), { maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(turns, async (pushes) => {
      const queue = new RunQueue<string>();
      const got: string[] = [];
      const reading = (async () => {
        for await (const item of queue) got.push(item);
      })();
      for (const items of pushes) {
        for (const item of items) queue.push(item);
        await Promise.resolve();
      }
      queue.close();
      await reading;
      expect(got).toEqual(pushes.flat());
    }),
  );
});

it("gives what came before anybody read", async () => {
  const queue = new RunQueue<string>();
  queue.push("a");
  queue.push("b");
  queue.close();
  expect(await Array.fromAsync(queue)).toEqual(["a", "b"]);
});

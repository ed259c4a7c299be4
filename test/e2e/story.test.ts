import { describe, expect, it } from "vitest";
import { runStory, type StoryResult } from "../../examples/story.ts";
import { CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { SERVICE_NAMES } from "../../services/interlock.ts";
import { connectTo, eventually, heldOf } from "../support/clients.ts";
import { type Running, startApart, startEmbedded, startOverNats } from "../support/interlock.ts";

/** The same story of an agent's day passes, however the five services are put together. */

async function tell(running: Running, onParked?: () => Promise<void>): Promise<{ result: StoryResult; text: string }> {
  const lines: string[] = [];
  const result = await runStory({
    address: running.address,
    agentKey: running.keys.agent,
    reviewerKey: running.keys.reviewer,
    print: (line) => lines.push(line),
    ...(onParked === undefined ? {} : { onParked }),
  });
  return { result, text: lines.join("\n") };
}

async function nothingIsHeld(running: Running): Promise<void> {
  await using clients = connectTo(running);
  await eventually(
    () => heldOf(clients),
    (held) => Object.keys(held).length === 0,
    30_000,
  );
}

describe.each([
  ["one process with SQLite", startEmbedded],
  ["one process over NATS", startOverNats],
  ["five processes over NATS", startApart],
] as const)("%s", (_, start) => {
  it("tells the whole story", { timeout: 120_000 }, async () => {
    await using running = await start();
    const { result, text } = await tell(running);
    expect(result.passed, text).toBe(true);
    expect(result.steps.map((step) => step.kind)).toEqual(result.steps.map(() => "as-told"));
    await nothingIsHeld(running);
  });
});

describe("five processes, one killed while a call waits for a person", () => {
  it.each(SERVICE_NAMES)(
    "finishes, once, after %s was killed and started again",
    { timeout: 120_000 },
    async (service) => {
      await using running = await startApart();
      const { result, text } = await tell(running, async () => {
        await running.kill(service);
        await running.start(service);
      });
      expect(result.passed, text).toBe(true);
      const refund = result.steps.find((step) => step.name === "refund");
      const answer = refund?.answer;
      if (answer?.kind !== "ended") throw new Error("the refund was refused");
      expect(answer.call.state).toBe(CallState.SUCCEEDED);
      expect(await runsOf(running, answer.call.ref?.session ?? "", answer.call.ref?.callId ?? "")).toBe(1);
      await nothingIsHeld(running);
    },
  );
});

/** How often the journal says that the call was let run. */
async function runsOf(running: Running, session: string, callId: string): Promise<number> {
  const { openJournal } = await import("../../services/interlock.ts");
  const { readConfig } = await import("../../services/shared/config.ts");
  await using journal = await openJournal(readConfig(running.configFile), { readOnly: true });
  let admitted = 0;
  for await (const record of journal.read(`session.demo.${session}`, 0)) {
    const event = JSON.parse(new TextDecoder().decode(record.body)) as { kind: string; callId?: string };
    if (event.kind === "admitted" && event.callId === callId) admitted++;
  }
  return admitted;
}

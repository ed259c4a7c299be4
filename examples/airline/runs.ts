import { readFileSync } from "node:fs";
import { z } from "zod";
import type { Json } from "../../services/shared/json.ts";

/** The recorded runs of test/data/tau-airline, as data. */

const event = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("message"), role: z.string() }),
  z.object({ kind: z.literal("call"), tool: z.string(), args: z.json() }),
  z.object({ kind: z.literal("result"), content: z.string() }),
]);

const run = z.object({
  task: z.int().min(0),
  trial: z.int().min(0),
  reward: z.number(),
  gold: z.array(z.object({ name: z.string(), kwargs: z.json() })).default([]),
  events: z.array(event),
});

export type RecordedCall = {
  readonly tool: string;
  /** As the agent sent them, whatever they are. */
  readonly args: Json;
  /** What the tool answered then; undefined when the recording ends before. */
  readonly result: string | undefined;
};

export type RecordedRun = {
  readonly task: number;
  readonly trial: number;
  readonly succeeded: boolean;
  readonly calls: readonly RecordedCall[];
  /** The right actions of the task. */
  readonly gold: readonly { readonly name: string; readonly args: Json }[];
};

/** @throws Error naming the line that is no recorded run. */
export function readRuns(file: string): readonly RecordedRun[] {
  const lines = readFileSync(file, "utf8").split("\n");
  return lines.flatMap((line, index) => (line.trim() === "" ? [] : [parseRun(line, `${file}:${index + 1}`)]));
}

function parseRun(line: string, place: string): RecordedRun {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (error) {
    throw new Error(`${place}: it is not JSON: ${error instanceof Error ? error.message : error}`, { cause: error });
  }
  const parsed = run.safeParse(json);
  if (!parsed.success) throw new Error(`${place}: it is no recorded run: ${z.prettifyError(parsed.error)}`);
  const { task, trial, reward, events, gold } = parsed.data;
  const calls: RecordedCall[] = [];
  for (const [index, item] of events.entries()) {
    if (item.kind !== "call") continue;
    // By place and not by id: the agent was given the same id twice.
    const next = events[index + 1];
    calls.push({
      tool: item.tool,
      args: item.args as Json,
      result: next?.kind === "result" ? next.content : undefined,
    });
  }
  const right = gold.map(({ name, kwargs }) => ({ name, args: kwargs as Json }));
  return { task, trial, succeeded: reward === 1, calls, gold: right };
}

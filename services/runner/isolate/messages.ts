import { z } from "zod";

/** To a worker process. It trusts the runner. */
export type ToWorker = {
  readonly kind: "run";
  readonly run: number;
  readonly code: string;
  readonly input: string;
  readonly memoryMb: number;
  readonly outputBytes: number;
};

const run = z.int().nonnegative();
const amount = z.number().nonnegative().max(Number.MAX_SAFE_INTEGER);
const used = { run, cpuMs: amount, memoryBytes: amount };

/** From a worker process, which an escaped program may have taken over: anything else ends it. */
const fromWorker = z.discriminatedUnion("kind", [
  /** A fresh isolate waits for a program. */
  z.strictObject({ kind: z.literal("ready") }),
  z.strictObject({
    kind: z.literal("output"),
    run,
    stream: z.enum(["stdout", "stderr"]),
    /** Bytes left out just before the text. */
    dropped: amount,
    text: z.string(),
  }),
  z.strictObject({ kind: z.literal("returned"), ...used, json: z.string() }),
  z.strictObject({ kind: z.literal("threw"), ...used, error: z.string() }),
  z.strictObject({ kind: z.literal("oom"), ...used }),
]);

export type FromWorker = z.output<typeof fromWorker>;

/** @throws Error when it is no message of ours. */
export function parseFromWorker(message: unknown): FromWorker {
  const parsed = fromWorker.safeParse(message);
  if (parsed.success) return parsed.data;
  throw new Error(`an unknown message: ${z.prettifyError(parsed.error)}`);
}

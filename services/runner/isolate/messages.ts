import { z } from "zod";

/** To a worker process. It trusts the runner. */
export type ToWorker =
  | {
      readonly kind: "run";
      readonly run: number;
      readonly code: string;
      readonly input: string;
      readonly memoryMb: number;
      readonly outputBytes: number;
      /** It may call tools, */
      readonly mayCall: boolean;
      /** or the world, */
      readonly mayFetch: boolean;
      /** both together so often. */
      readonly asks: number;
    }
  /** The answer to what a program asked, as JSON of {ok: true, value} or {ok: false, error}. */
  | { readonly kind: "reply"; readonly run: number; readonly id: number; readonly json: string };

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
  /** The program calls a tool and waits for a reply. */
  z.strictObject({
    kind: z.literal("ask"),
    run,
    id: z.int().positive(),
    name: z.string().max(8192),
    json: z.string(),
  }),
  /** The program makes a request and waits for a reply. */
  z.strictObject({ kind: z.literal("fetch"), run, id: z.int().positive(), json: z.string() }),
  z.strictObject({ kind: z.literal("returned"), ...used, json: z.string() }),
  z.strictObject({ kind: z.literal("threw"), ...used, error: z.string() }),
  z.strictObject({ kind: z.literal("oom"), ...used }),
  /** A limit that the worker keeps is passed: it has no more to say, and is to be ended. */
  z.strictObject({
    kind: z.literal("limit"),
    ...used,
    limit: z.enum(["output_bytes", "tool_calls", "binding_calls"]),
    amount,
  }),
]);

export type FromWorker = z.output<typeof fromWorker>;

/** @throws Error when it is no message of ours. */
export function parseFromWorker(message: unknown): FromWorker {
  const parsed = fromWorker.safeParse(message);
  if (parsed.success) return parsed.data;
  throw new Error(`an unknown message: ${z.prettifyError(parsed.error)}`);
}

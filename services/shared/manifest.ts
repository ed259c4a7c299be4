import { z } from "zod";
import { canonicalJson, type Json, sha256Hex } from "./json.ts";
import { TOOL_NAME } from "./names.ts";

/**
 * A tool's manifest: what an operator says a tool is. The broker reads it to decide, the runner to run; its digest
 * binds the two. Bounds are the widest any manifest may ask for.
 */

const text = (max: number) => z.string().min(1).max(max);

const limits = z.strictObject({
  wall_ms: z.int().min(1).max(3_600_000).default(10_000).describe("wall clock of one run"),
  cpu_ms: z.int().min(1).max(3_600_000).default(5_000).describe("CPU time of one run"),
  memory_bytes: z
    .int()
    .min(8 << 20)
    .max(8 * 2 ** 30)
    .default(128 << 20)
    .describe("memory of one run"),
  output_bytes: z
    .int()
    .min(0)
    .max(1 << 20)
    .default(64 << 10)
    .describe("result, stdout and stderr, each"),
  pids: z.int().min(1).max(4096).default(64).describe("processes of a container"),
});

/** JavaScript run in a V8 isolate: the body of an async function that sees `input` and returns a JSON value. */
const isolate = z.strictObject({
  kind: z.literal("isolate"),
  code: text(256 << 10)
    .optional()
    .describe("the program; absent when the arguments carry it"),
  code_argument: text(64).optional().describe("the argument that carries the program"),
});

/** A program in a container. Arguments arrive as JSON on stdin. */
const container = z.strictObject({
  kind: z.literal("container"),
  image: z.enum(["python", "node", "shell"]).describe("an image of sandbox-images/images.lock.json"),
  command: z.array(text(4096)).min(1).max(64).describe("program and arguments; it reads the call's arguments on stdin"),
  isolation_class: z.enum(["runc", "gvisor", "kata"]).default("runc"),
});

/** A function inside the runner's own process that reaches nothing: for tests and benchmarks of the pipeline. */
const builtin = z.strictObject({ kind: z.literal("builtin"), name: z.enum(["noop", "echo"]) });

/** What people read when they are asked about a call. */
const review = z.strictObject({
  sentence: text(300)
    .optional()
    .describe("what will happen, e.g. `Refund {amount_usd_micros} of {order_id}.`; braces name arguments"),
  first: z.array(text(64)).max(8).default([]).describe("the arguments that matter most, in order"),
});

export const manifestSchema = z.strictObject({
  name: z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. airline.cancel_reservation"),
  version: z.string().regex(/^\d+\.\d+\.\d+$/, "use major.minor.patch"),
  description: text(1024),
  impact: z.enum(["low", "medium", "high"]),
  effects: z.array(z.enum(["reads", "writes", "sends", "spends", "irreversible"])).default([]),
  groups: z.array(text(64)).max(16).default([]).describe("tool groups that policy may name"),
  labels: z
    .array(z.enum(["untrusted-input", "private-data"]))
    .default([])
    .describe("what a session has touched once this tool has run"),
  idempotent: z.boolean().default(false).describe("may be run again when its outcome was lost"),
  arguments: z
    .record(z.string(), z.json())
    .describe("JSON Schema 2020-12 of the arguments; its type is object. What is writeOnly is never shown to people"),
  review: review.optional(),
  sandbox: z.discriminatedUnion("kind", [isolate, container, builtin]),
  limits: limits.prefault({}),
  egress: z.array(text(260)).max(64).default([]).describe("host:port entries the tool may reach"),
  price: z
    .partialRecord(
      z.enum(["usd_micros", "calls", "cpu_ms", "tokens", "egress_bytes"]),
      z.int().min(0).max(Number.MAX_SAFE_INTEGER),
    )
    .default({})
    .describe("what a call is expected to cost; one call is always counted"),
});

export type Manifest = z.output<typeof manifestSchema>;
export type SandboxSpec = Manifest["sandbox"];

/** The bytes whose SHA-256 names exactly this manifest. */
export function canonicalManifest(manifest: Manifest): { readonly json: string; readonly digest: string } {
  const json = canonicalJson(manifest as unknown as Json);
  return { json, digest: sha256Hex(json) };
}

import { z } from "zod";
import { parseEgressRule } from "./egress.ts";
import { canonicalJson, type Json, sha256Hex } from "./json.ts";
import { TOOL_NAME, TOOL_PATTERN } from "./names.ts";
import { priceSchema } from "./price.ts";
import { SECRET_REF } from "./secret-ref.ts";

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
  egress_bytes: z
    .int()
    .min(0)
    .max(2 ** 31)
    .default(16 << 20)
    .describe("through the egress proxy, both ways together"),
  output_bytes: z
    .int()
    .min(0)
    .max(1 << 20)
    .default(64 << 10)
    .describe("result, stdout and stderr, each"),
  pids: z.int().min(1).max(4096).default(64).describe("processes of a container"),
});

const egressRule = z.string().superRefine((rule, context) => {
  const parsed = parseEgressRule(rule);
  if (parsed.kind === "refused") context.addIssue(parsed.why);
});
/** Tools called by one run of a program, unless its manifest says otherwise. */
export const DEFAULT_MAX_CALLS = 64;

/** Programs above this are refused. */
export const MAX_CODE_BYTES = 256 << 10;

const httpToken = z.string().regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$/, "use the characters of an HTTP header's name");
const target = egressRule.describe("the egress rule it belongs to, letter by letter");

/**
 * A credential: where it is, and where it goes. In a header or the query it is put by the egress proxy, outside the
 * sandbox; in a variable it is inside, for programs that can do no other way.
 */
const secret = z.strictObject({
  ref: z
    .string()
    .regex(SECRET_REF, "write secret://file/NAME, secret://env/NAME or secret://vault/MOUNT/PATH#FIELD")
    .describe("where the runner finds it"),
  to: z.discriminatedUnion("kind", [
    z.strictObject({
      kind: z.literal("header"),
      rule: target,
      name: httpToken,
      format: text(256)
        .regex(/^[^\r\n\0]*\{\}[^\r\n\0]*$/, "put {} where the secret goes")
        .default("{}"),
    }),
    z.strictObject({ kind: z.literal("query"), rule: target, name: httpToken }),
    z.strictObject({
      kind: z.literal("env"),
      name: z.string().regex(/^[A-Z][A-Z0-9_]{0,63}$/, "use capitals, digits and underscores"),
    }),
  ]),
});

/** Variables that a sandbox sets itself. */
const RESERVED =
  /^(PATH|HOME|LANG|(HTTPS?|ALL|NO)_PROXY|.*_CA_(BUNDLE|CERTS)|GIT_SSL_CAINFO|SSL_CERT_FILE|PIP_CERT|LD_.*)$/;

/** JavaScript run in a V8 isolate: the body of an async function that sees `input` and returns a JSON value. */
const isolate = z.strictObject({
  kind: z.literal("isolate"),
  code: text(MAX_CODE_BYTES).optional().describe("the program; absent when a file or the arguments carry it"),
  code_argument: text(64).optional().describe("the argument that carries the program"),
  code_file: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.(js|ts)$/, "name a .js or .ts file beside the manifest")
    .optional()
    .describe("a file beside the manifest that defines main(input)"),
  code_sha256: z
    .string()
    .regex(/^[0-9a-f]{64}$/, "give the 64 hex digits that sha256sum prints")
    .optional()
    .describe("the SHA-256 of code_file"),
  jit: z
    .boolean()
    .optional()
    .describe("let V8 make machine code, and offer WebAssembly: faster, and more for a program to attack"),
  calls: z
    .array(z.string().regex(TOOL_PATTERN, "name a tool, as orders.lookup, or all of a group of names, as orders.*"))
    .max(64)
    .optional()
    .describe("the tools that the program may call"),
  max_calls: z.int().min(1).max(1000).optional().describe("tools called by one run; 64 unless set"),
  nested_approval: z
    .enum(["fail", "wait"])
    .optional()
    .describe("what a program does whose call needs a person: be told so (unless set), or wait within its wall clock"),
});

/** What else than to run a program a session's sandbox can be asked for; the arguments say with which file. */
const operation = z.enum(["upload", "download", "list", "pause", "resume", "close"]);

/** A program in a container, or an operation on a session's. Arguments arrive as JSON on stdin. */
const container = z
  .strictObject({
    kind: z.literal("container"),
    image: z.enum(["python", "node", "shell"]).describe("an image of sandbox-images/images.lock.json"),
    command: z
      .array(text(4096).regex(/^[^\0]*$/, "leave out the NUL"))
      .min(1)
      .max(64)
      .optional()
      .describe("program and arguments; it reads the call's arguments on stdin"),
    operation: operation.optional().describe("instead of a command; needs lifetime: session"),
    lifetime: z
      .enum(["call", "session"])
      .default("call")
      .describe("call: a fresh container each; session: one for the agent's session, with its files and processes"),
    idle_ms: z.int().min(1_000).max(3_600_000).default(300_000).describe("a session's sandbox unused for so long ends"),
    ttl_ms: z.int().min(1_000).max(86_400_000).default(3_600_000).describe("and so does one that is this old"),
    isolation_class: z
      .enum(["runc", "gvisor", "kata"])
      .default("runc")
      .describe("at least; configuration may ask for more"),
  })
  .superRefine(({ command, operation, lifetime }, context) => {
    if ((command === undefined) === (operation === undefined)) {
      context.addIssue({ code: "custom", path: ["command"], message: "set either command or operation" });
    }
    if (operation !== undefined && lifetime === "call") {
      context.addIssue({ code: "custom", path: ["lifetime"], message: "an operation needs lifetime: session" });
    }
  });

/** A function inside the runner's own process that reaches nothing: for tests and benchmarks of the pipeline. */
const builtin = z.strictObject({ kind: z.literal("builtin"), name: z.enum(["noop", "echo"]) });

const loops = z.strictObject({
  ignore: z.array(text(64)).max(16).default([]).describe("arguments that change without meaning: cursors, request ids"),
  polls: z.int().min(2).max(30).optional().describe("a polling tool: equal calls with an equal answer, in a row"),
});

const provenance = z.strictObject({
  targets: z.array(text(64)).max(32).default([]).describe("arguments that say whom or where: every word matters"),
  prose: z.array(text(64)).max(32).default([]).describe("free text: only addresses, URLs and account numbers matter"),
});

/** What people read when they are asked about a call. */
const review = z.strictObject({
  sentence: text(300)
    .optional()
    .describe("what will happen, e.g. `Refund {amount_usd_micros} of {order_id}.`; braces name arguments"),
  first: z.array(text(64)).max(8).default([]).describe("the arguments that matter most, in order"),
});

export const manifestSchema = z
  .strictObject({
    name: z.string().regex(TOOL_NAME, "use dotted lower-case words, e.g. airline.cancel_reservation"),
    version: z.string().regex(/^\d+\.\d+\.\d+$/, "use major.minor.patch"),
    description: text(1024),
    impact: z.enum(["low", "medium", "high"]),
    effects: z.array(z.enum(["reads", "writes", "sends", "spends", "irreversible"])).default([]),
    groups: z.array(text(64)).max(16).default([]).describe("tool groups that policy may name"),
    labels: z
      .array(z.enum(["untrusted-input", "private-data", "secret-data"]))
      .default([])
      .describe("what a session has touched once this tool has run"),
    loops: loops.optional().describe("what the loop rules must know of the tool"),
    provenance: provenance.optional().describe("where the guard's guess by an argument's name is wrong"),
    idempotent: z.boolean().default(false).describe("may be run again when its outcome was lost"),
    arguments: z
      .record(z.string(), z.json())
      .describe("JSON Schema 2020-12 of the arguments; its type is object. What is writeOnly is never shown to people"),
    review: review.optional(),
    sandbox: z.discriminatedUnion("kind", [isolate, container, builtin]),
    limits: limits.prefault({}),
    egress: z
      .array(egressRule)
      .max(64)
      .default([])
      .describe("what the tool may reach: `[METHOD,... ]host:port[/path]` each"),
    secrets: z
      .array(secret)
      .max(16)
      .default([])
      .describe("credentials by reference; the tool itself never sees one it is lent"),
    price: priceSchema.default({}).describe("what a call is expected to cost; one call is always counted"),
  })
  .superRefine(({ secrets, egress, sandbox }, context) => {
    for (const [index, { to }] of secrets.entries()) {
      const at = (field: string): (string | number)[] => ["secrets", index, "to", field];
      if (sandbox.kind === "builtin") {
        context.addIssue({ code: "custom", path: ["secrets"], message: "a builtin takes no secrets" });
      } else if (to.kind === "env") {
        if (sandbox.kind !== "container") {
          const message = "only a container has variables; put it into a header or the query";
          context.addIssue({ code: "custom", path: at("kind"), message });
        } else if (RESERVED.test(to.name)) {
          context.addIssue({
            code: "custom",
            path: at("name"),
            message: `${to.name} is the sandbox's own; use another`,
          });
        }
      } else if (!egress.includes(to.rule)) {
        context.addIssue({ code: "custom", path: at("rule"), message: "name a rule of the manifest's egress" });
      }
    }
  });

export type Manifest = z.output<typeof manifestSchema>;
export type SandboxSpec = Manifest["sandbox"];
export type SecretSpec = Manifest["secrets"][number];

/** The bytes whose SHA-256 names exactly this manifest. */
export function canonicalManifest(manifest: Manifest): { readonly json: string; readonly digest: string } {
  const json = canonicalJson(manifest as unknown as Json);
  return { json, digest: sha256Hex(json) };
}

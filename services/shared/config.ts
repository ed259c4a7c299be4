import { z } from "zod";
import { NAME } from "./names.ts";
import { readYaml } from "./yaml-file.ts";

/**
 * The configuration of one Interlock process: `interlock.yaml`. Every field has a default, so no file is needed to
 * start. Paths are relative to the working directory.
 */

const name = z.string().regex(NAME, "use 1 to 64 letters, digits, '-' or '_', the first a letter or digit");
const bytes = z.int().min(1);

const key = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("agent"),
    sha256: z.string().regex(/^[0-9a-f]{64}$/, "give the SHA-256 of the key as 64 lower-case hex digits"),
    tenant: name,
    agent: name,
  }),
  z.strictObject({
    kind: z.literal("person"),
    sha256: z.string().regex(/^[0-9a-f]{64}$/, "give the SHA-256 of the key as 64 lower-case hex digits"),
    tenant: name,
    name,
    roles: z.array(z.enum(["reviewer", "operator"])).min(1),
    groups: z.array(name).default([]),
  }),
]);

export const keysSchema = z.strictObject({ keys: z.array(key).max(10_000) });
export type ApiKey = z.output<typeof key>;

const tls = z.strictObject({
  cert: z.string().describe("PEM file of the server's certificate chain"),
  key: z.string().describe("PEM file of its private key"),
  client_ca: z.string().optional().describe("PEM file; when set, clients must present a certificate signed by it"),
});

const journal = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("sqlite"),
    synchronous: z.enum(["full", "normal"]).default("full").describe("full survives power loss, normal only a crash"),
  }),
  z.strictObject({
    kind: z.literal("jetstream"),
    replicas: z.union([z.literal(1), z.literal(3), z.literal(5)]).default(1),
  }),
]);

const nats = z.strictObject({
  url: z.string().regex(/^(nats|tls):\/\//, "begin with nats:// or tls://"),
  user: z.string().optional(),
  password_file: z.string().optional().describe("file that holds the password"),
  journal_user: z
    .string()
    .optional()
    .describe("user of the journal's connection, where JetStream has an account of its own; default: user"),
});

const hostPort = z.string().regex(/^[^\s:]+:\d{1,5}$/, "write host:port, e.g. 127.0.0.1:7443");

const policy = z.strictObject({
  trusted_keys: z
    .array(z.string())
    .default([])
    .describe(
      "public PEMs; when there are any, only policies signed by one of them are used, files and revisions alike",
    ),
  authzen: z
    .strictObject({
      listen: hostPort.describe("where AuthZEN 1.0 is served; with tls where the process has it"),
      base_url: z
        .url({ protocol: /^https$/, error: "begin with https://" })
        .optional()
        .describe("what its metadata names it by; default: where it listens"),
    })
    .optional()
    .describe("set: the pdp answers AuthZEN 1.0 over HTTP too"),
});

const isolationClass = z.enum(["runc", "gvisor", "kata"]).default("runc");

const runner = z.strictObject({
  id: name.default("runner-1"),
  isolates: z
    .strictObject({
      workers: z.int().min(1).max(64).default(8).describe("worker processes at most"),
      warm: z.int().min(0).max(64).default(1).describe("worker processes kept ready"),
      per_tenant: z.int().min(1).max(10_000).default(64).describe("runs of one tenant at once, those that wait too"),
      require_confinement: z
        .boolean()
        .default(false)
        .describe("refuse to start where a measure that confines workers does not hold"),
    })
    .prefault({}),
  containers: z
    .enum(["auto", "off", "required"])
    .default("auto")
    .describe("auto: where an engine answers; required: refuse to start without"),
  warm_containers: z.int().min(0).max(256).default(4).describe("containers kept ready, over all kinds; 0 keeps none"),
  isolation: z
    .strictObject({ low: isolationClass, medium: isolationClass, high: isolationClass })
    .prefault({})
    .describe("the least isolation of containers by their tool's impact; a manifest may ask for more"),
  secrets: z
    .strictObject({
      directory: z.string().optional().describe("of secret://file/NAME: one file each"),
      vault: z
        .strictObject({ address: z.url({ protocol: /^https?$/ }), token_file: z.string() })
        .optional()
        .describe("of secret://vault/MOUNT/PATH#FIELD: key-value engine, version 2"),
    })
    .prefault({})
    .describe("where runners find secrets; secret://env/NAME is the variable INTERLOCK_SECRET_NAME"),
  egress: z
    .strictObject({
      hosts: z
        .array(
          z.strictObject({
            host: z.string().describe("a name that manifests' egress may use"),
            port: z.int().min(1).max(65_535),
            address: z.union([z.ipv4(), z.ipv6()]),
            address_port: z.int().min(1).max(65_535).optional().describe("default: port"),
          }),
        )
        .default([])
        .describe("inner services: tied to an address that would be refused, past name service and address check"),
      extra_ca: z.string().optional().describe("PEM file of certificate authorities beside the well-known ones"),
    })
    .prefault({}),
  builtins: z.boolean().default(false).describe("functions inside the runner, for benchmarks"),
  max_concurrent: z.int().min(1).max(10_000).default(256),
});

/** From which count on; a rung that is left out is never reached. Counts beyond what the rules look back on are refused. */
const ladder = (most: number) =>
  z
    .strictObject({
      warn: z.int().min(2).max(most).optional().describe("the agent is told, in the call's warnings"),
      ask: z.int().min(2).max(most).optional().describe("people are asked"),
      stop: z.int().min(2).max(most).optional().describe("the call is refused"),
    })
    .refine(
      ({ warn = 0, ask = warn, stop = ask }) => warn <= ask && ask <= stop,
      "let warn, ask and stop rise in this order: a rung above a sharper one is never reached",
    );

const loops = z.strictObject({
  exact_repeat_limit: z.int().min(1).max(1000).default(3).describe("equal calls in a row, whatever they answer"),
  no_progress: ladder(30).prefault({ stop: 3 }).describe("the nth of like calls with equal answers"),
  cycle: ladder(10).prefault({ warn: 2, stop: 3 }).describe("turns of a cycle of 2 to 6 calls"),
  errors: ladder(30).prefault({ warn: 3, ask: 6 }).describe("failures of one tool in a row"),
  stale: ladder(60).prefault({ warn: 12, ask: 24 }).describe("paid calls in a row that bring nothing new"),
  end_session_after: z.int().min(1).max(60).default(10).describe("refused calls, of a session's last 64"),
});

const telemetry = z.strictObject({
  prometheus: hostPort.optional().describe("where /metrics is served; keep it on a network of your own"),
  otlp: z
    .url({ protocol: /^https?$/, error: "begin with http:// or https://" })
    .optional()
    .describe("a collector's OTLP/HTTP endpoint for metrics, as http://127.0.0.1:4318/v1/metrics"),
  otlp_every_ms: z.int().min(100).max(3_600_000).default(15_000),
});

export const configSchema = z.strictObject({
  listen: hostPort.default("127.0.0.1:7443"),
  tls: tls.optional(),
  state: z.string().default(".interlock").describe("directory of the journal, keys and credentials"),
  policies: z.string().default("policies").describe("directory of model.conf, policy.csv, budgets.yaml and tools/"),
  journal: journal.optional().describe("default: sqlite, or jetstream where nats is set"),
  nats: nats.optional().describe("set: services talk over NATS and state lives in JetStream"),
  keys: z.string().optional().describe("file of API keys; default: keys.yaml in state"),
  signing_key: z.string().optional().describe("Ed25519 PEM; default: signing.pem in state"),
  trusted_keys: z
    .array(z.string())
    .optional()
    .describe("public PEMs whose permits the runner accepts; default: signing.pub.pem in state"),
  secrets: z.array(z.string()).default([]).describe("files whose content is masked wherever it appears in output"),
  policy: policy.prefault({}),
  runner: runner.prefault({}),
  known_values: z
    .array(z.string().min(3).max(256))
    .max(1_000)
    .default([])
    .describe("whom and what tools may be pointed at without being named by the user; @domain for every address there"),
  loops: loops.prefault({}).describe("when a session goes in circles: docs/guard.md"),
  telemetry: telemetry.optional().describe("figures for Prometheus, or for an OpenTelemetry collector"),
  max_message_bytes: bytes.max(64 << 20).default(4 << 20),
  log_level: z.enum(["trace", "debug", "info", "warn", "error", "silent"]).default("info"),
});

export type Config = z.output<typeof configSchema>;
export type ConfigInput = z.input<typeof configSchema>;

/** @throws FileProblems naming file, line, field and mend. */
export function readConfig(file: string): Config {
  return readYaml(file, configSchema).value;
}

export function defaultConfig(): Config {
  return configSchema.parse({});
}

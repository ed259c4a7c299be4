import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { DescService, MessageInitShape } from "@bufbuild/protobuf";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import type { Meter } from "@opentelemetry/api";
import { ApprovalsService } from "../proto/interlock/v1/approvals_pb.ts";
import { BrokerService, type CheckEditRequestSchema, type CheckEditResponse } from "../proto/interlock/v1/broker_pb.ts";
import { LedgerService } from "../proto/interlock/v1/ledger_pb.ts";
import { PdpService } from "../proto/interlock/v1/pdp_pb.ts";
import { RunnerService } from "../proto/interlock/v1/runner_pb.ts";
import { hostApprovals } from "./approvals/host.ts";
import { loadCatalog } from "./broker/catalog.ts";
import { startBroker } from "./broker/service.ts";
import { loadBudgets } from "./ledger/budgets.ts";
import { ledgerMetrics } from "./ledger/metrics.ts";
import { startLedger } from "./ledger/service.ts";
import { startAuthzen } from "./pdp/authzen-server.ts";
import { startPdp } from "./pdp/service.ts";
import type { Backend } from "./runner/backend.ts";
import { openBuiltinBackend } from "./runner/builtin.ts";
import { openContainerBackend } from "./runner/container.ts";
import { resolver } from "./runner/egress/addresses.ts";
import { openIsolateBackend } from "./runner/isolate/backend.ts";
import { envSecrets, fileSecrets, vaultSecrets } from "./runner/secrets.ts";
import { startRunner } from "./runner/service.ts";
import type { Config } from "./shared/config.ts";
import { authenticator } from "./shared/identity.ts";
import { newId } from "./shared/ids.ts";
import { startCheckpoints } from "./shared/journal/checkpoint.ts";
import { openJetstreamJournal } from "./shared/journal/jetstream.ts";
import type { Journal } from "./shared/journal/journal.ts";
import { openSqliteJournal } from "./shared/journal/sqlite.ts";
import type { Log } from "./shared/log.ts";
import { forward } from "./shared/rpc/forward.ts";
import { startGrpcServer } from "./shared/rpc/grpc-server.ts";
import { localClient } from "./shared/rpc/local.ts";
import { natsClient } from "./shared/rpc/nats-client.ts";
import { serveNats } from "./shared/rpc/nats-server.ts";
import { type Service, service } from "./shared/rpc/service.ts";
import type { Client } from "./shared/rpc/types.ts";
import { readKeys, readPolicyKeys, readSecrets, readSigner, readTrustedKeys } from "./shared/state-dir.ts";
import { startTelemetry, type Telemetry } from "./shared/telemetry.ts";

/**
 * The composition root: the only file that knows all five services. It decides which of them this process hosts and
 * what connects them; the services cannot tell.
 */

const DESCRIPTORS = {
  pdp: PdpService,
  ledger: LedgerService,
  approvals: ApprovalsService,
  runner: RunnerService,
  broker: BrokerService,
} as const;

export type ServiceName = keyof typeof DESCRIPTORS;
/** In the order in which they start: what a service needs comes before it. */
export const SERVICE_NAMES = Object.keys(DESCRIPTORS) as readonly ServiceName[];

export function isServiceName(text: string): text is ServiceName {
  return Object.hasOwn(DESCRIPTORS, text);
}

export type HostOptions = {
  readonly services: readonly ServiceName[];
  readonly log: Log;
  /** In place of the configured sandboxes; for tests and benchmarks. */
  readonly backends?: readonly Backend[];
  readonly now?: () => number;
};

export type Running = AsyncDisposable & {
  /** Where the gRPC edge listens. */
  readonly address: string;
  /** Where the reviewers' page is, if this process serves it. */
  readonly page: string | undefined;
  /** What state is kept in, in words. */
  readonly journal: string;
};

/** @throws Error naming the place when the journal cannot be opened. */
export async function openJournal(config: Config, options: { readonly readOnly: boolean }): Promise<Journal> {
  const journal = journalOf(config);
  switch (journal.kind) {
    case "sqlite": {
      const path = join(config.state, "journal.db");
      return openSqliteJournal({ path, synchronous: journal.synchronous, readOnly: options.readOnly });
    }
    case "jetstream": {
      return await openJetstreamJournal({
        connection: await connectNats(config, "journal", config.nats?.journal_user),
        replicas: journal.replicas,
      });
    }
  }
}

/**
 * Starts the named services and their edge. What was started is stopped in reverse order when the result is disposed,
 * or when a later part cannot start.
 * @throws FileProblems for what an operator wrote wrong, Error for a port in use or a NATS that does not answer.
 */
export async function startInterlock(config: Config, options: HostOptions): Promise<Running> {
  const stack = new AsyncDisposableStack();
  try {
    const host = new Host(config, options, stack);
    for (const name of SERVICE_NAMES) if (options.services.includes(name)) await host.start(name);
    const address = await host.openEdge();
    const { page } = host;
    return { address, page, journal: journalOf(config).kind, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

class Host {
  readonly #config: Config;
  readonly #options: HostOptions;
  readonly #stack: AsyncDisposableStack;
  readonly #hosted = new Map<ServiceName, Service>();
  page: string | undefined;
  #journal: Promise<Journal> | undefined;
  #nats: Promise<NatsConnection> | undefined;
  #telemetry: Promise<Telemetry> | undefined;

  constructor(config: Config, options: HostOptions, stack: AsyncDisposableStack) {
    this.#config = config;
    this.#options = options;
    this.#stack = stack;
  }

  async start(name: ServiceName): Promise<void> {
    const started = await this.#startService(name);
    this.#stack.use(started);
    this.#hosted.set(name, started.service);
    if (this.#config.nats === undefined) return;
    const connection = await this.#connection();
    const instance = name === "runner" ? { instance: this.#config.runner.id } : {};
    this.#stack.use(serveNats(connection, [started.service], { queue: name, log: this.#options.log, ...instance }));
  }

  async #startService(name: ServiceName): Promise<{ service: Service } & AsyncDisposable> {
    const config = this.#config;
    const log = this.#options.log.child({ service: name });
    const now = this.#options.now ?? Date.now;
    switch (name) {
      case "pdp":
        return await this.#startPdp(log, now);
      case "ledger": {
        const budgets = loadBudgets(join(config.policies, "budgets.yaml"));
        const metrics = await this.#meter();
        const ledger = await startLedger({
          ...{ journal: await this.#openJournal(), budgets, now, log },
          ...(metrics === undefined ? {} : { metrics: ledgerMetrics(metrics) }),
        });
        return hosted(service(LedgerService, ledger.handlers), ledger);
      }
      case "approvals": {
        const approvals = await hostApprovals(config, {
          ...{ journal: await this.#openJournal(), now, newId, log },
          checkEdit: (tenant, ref, argumentsJson) => this.#checkEdit({ tenant, ref, argumentsJson }),
        });
        this.page = approvals.pageUrl;
        return hosted(service(ApprovalsService, approvals.handlers), approvals);
      }
      case "runner": {
        const bootId = newId();
        const backends =
          this.#options.backends ?? (await openBackends(config, { bootId, log, now, meter: await this.#meter() }));
        const trustedKeys = readTrustedKeys(config);
        const { id: runnerId, max_concurrent: maxConcurrent } = config.runner;
        const runner = await startRunner({ runnerId, bootId, backends, trustedKeys, maxConcurrent, now, log });
        return hosted(service(RunnerService, runner.handlers), runner);
      }
      case "broker":
        return await this.#startBroker(log, now);
    }
  }

  /** Approvals start before the broker, and ask it about a call only once people have answered one. */
  async #checkEdit(request: MessageInitShape<typeof CheckEditRequestSchema>): Promise<CheckEditResponse> {
    const broker = await this.#client(BrokerService, "broker", "approvals");
    return await broker.checkEdit(request, { deadlineMs: Date.now() + CHECK_EDIT_MS });
  }

  async #startPdp(log: Log, now: () => number): Promise<{ service: Service } & AsyncDisposable> {
    const config = this.#config;
    const tools = loadCatalog(join(config.policies, "tools"))
      .list()
      .map(({ manifest }) => manifest);
    const journal = await this.#openJournal();
    const trustedKeys = readPolicyKeys(config);
    const stack = new AsyncDisposableStack();
    const pdp = stack.use(await startPdp({ policyDir: config.policies, tools, journal, trustedKeys, now, log }));
    if (config.policy.authzen !== undefined) {
      const { listen, base_url: baseUrl } = config.policy.authzen;
      const tls = config.tls === undefined ? undefined : readTls(config.tls);
      const authenticate = authenticator(readKeys(config));
      const server = stack.use(await startAuthzen({ listen, baseUrl, tls, authenticate, pdp, tools, now, log }));
      log.info({ url: server.url }, "authzen.listening");
    }
    return { service: service(PdpService, pdp.handlers), [Symbol.asyncDispose]: () => stack.disposeAsync() };
  }

  async #startBroker(log: Log, now: () => number): Promise<{ service: Service } & AsyncDisposable> {
    const config = this.#config;
    const journal = await this.#openJournal();
    const signer = readSigner(config);
    const broker = await startBroker({
      journal,
      pdp: await this.#client(PdpService, "pdp"),
      ledger: await this.#client(LedgerService, "ledger"),
      approvals: await this.#client(ApprovalsService, "approvals"),
      runner: await this.#client(RunnerService, "runner"),
      catalog: loadCatalog(join(config.policies, "tools")),
      signer,
      secrets: readSecrets(config),
      loops: config.loops,
      knownValues: config.known_values,
      now,
      newId,
      log,
    });
    const checkpoints = startCheckpoints({ journal, everyMs: 60_000, signer, now });
    const stack = new AsyncDisposableStack();
    stack.use(checkpoints);
    stack.use(broker);
    return { service: service(BrokerService, broker.handlers), [Symbol.asyncDispose]: () => stack.disposeAsync() };
  }

  /** The edge serves every service whose contract names callers: hosted ones here, the others by forwarding. */
  async openEdge(): Promise<string> {
    const config = this.#config;
    const services: Service[] = [];
    for (const name of SERVICE_NAMES) {
      const here = this.#hosted.get(name);
      if (here !== undefined) services.push(here);
      else if (config.nats !== undefined) {
        services.push(forward(DESCRIPTORS[name], natsClient(DESCRIPTORS[name], await this.#connection(), EDGE)));
      }
    }
    const server = await startGrpcServer({
      listen: config.listen,
      services,
      authenticate: authenticator(readKeys(config)),
      log: this.#options.log,
      maxMessageBytes: config.max_message_bytes,
      ...(config.tls === undefined ? {} : { tls: readTls(config.tls) }),
    });
    this.#stack.use(server);
    return server.address;
  }

  /** Over NATS when there is one, even to a service of this process: one way for all, wherever each of them runs. */
  async #client<S extends DescService>(desc: S, name: ServiceName, as: ServiceName = "broker"): Promise<Client<S>> {
    const caller = { kind: "service", name: as } as const;
    if (this.#config.nats !== undefined) return natsClient(desc, await this.#connection(), { caller });
    const here = this.#hosted.get(name);
    if (here === undefined) throw new Error(`${as} needs ${name}: host it here too, or set nats`);
    return localClient<S>(here, { caller });
  }

  #connection(): Promise<NatsConnection> {
    this.#nats ??= connectNats(this.#config, this.#options.services.join("+")).then((connection) => {
      this.#stack.defer(() => connection.drain());
      return connection;
    });
    return this.#nats;
  }

  /** Where no figures are collected, none are kept. */
  async #meter(): Promise<Meter | undefined> {
    const { telemetry } = this.#config;
    if (telemetry === undefined) return undefined;
    const { prometheus, otlp, otlp_every_ms: otlpEveryMs } = telemetry;
    this.#telemetry ??= startTelemetry({ prometheus, otlp, otlpEveryMs }).then((started) => this.#stack.use(started));
    return (await this.#telemetry).meter;
  }

  #openJournal(): Promise<Journal> {
    this.#journal ??= openJournal(this.#config, { readOnly: false }).then((journal) => this.#stack.use(journal));
    return this.#journal;
  }
}

/** The sandboxes of this machine, as configured. What is not available says so when it is asked to run. */
export async function openBackends(
  config: Config,
  options: {
    readonly bootId: string;
    readonly log: Log;
    readonly now: () => number;
    readonly meter?: Meter | undefined;
  },
): Promise<readonly Backend[]> {
  const { id: runnerId, isolates, containers, builtins } = config.runner;
  const { log, now } = options;
  const { secrets, egress } = reachOf(config);
  const backends: Backend[] = [
    await openIsolateBackend({ workers: isolates, log, secrets, egress: { ...egress, now } }),
  ];
  if (containers !== "off") {
    const lockFile = join(import.meta.dirname, "../sandbox-images/images.lock.json");
    const { warm_containers: warm, isolation } = config.runner;
    const opened = await openContainerBackend({ runnerId, lockFile, warm, isolation, secrets, egress, ...options });
    backends.push(opened);
    if (containers === "required") await requireAvailable(opened, backends);
  }
  if (builtins) backends.push(openBuiltinBackend());
  return backends;
}

/** What sandboxes are lent, and where they may find it. */
function reachOf({ runner }: Config) {
  const { secrets, egress } = runner;
  const { directory, vault } = secrets;
  return {
    secrets: {
      env: envSecrets(process.env),
      ...(directory === undefined ? {} : { file: fileSecrets(directory) }),
      ...(vault === undefined ? {} : { vault: vaultSecrets({ address: vault.address, tokenFile: vault.token_file }) }),
    },
    egress: {
      resolve: resolver(egress.hosts),
      extraCa: egress.extra_ca === undefined ? [] : [readFileSync(egress.extra_ca, "utf8")],
    },
  };
}

/** @throws Error saying why not, when no class of containers can run here. */
async function requireAvailable(containers: Backend, opened: readonly Backend[]): Promise<void> {
  const found = await containers.describe();
  if (found.some((capability) => capability.available)) return;
  await Promise.all(opened.map((backend) => backend[Symbol.asyncDispose]()));
  const why = found.map((capability) => capability.note).join(" ");
  throw new Error(`runner.containers is required, and none can run here: ${why}`);
}

/** Of the time that a person waits for their answer. */
const CHECK_EDIT_MS = 2_000;

const EDGE = { caller: { kind: "service", name: "edge" } } as const;

function journalOf(config: Config): NonNullable<Config["journal"]> {
  if (config.journal !== undefined) return config.journal;
  return config.nats === undefined ? { kind: "sqlite", synchronous: "full" } : { kind: "jetstream", replicas: 1 };
}

async function connectNats(config: Config, name: string, as?: string): Promise<NatsConnection> {
  if (config.nats === undefined) throw new Error("a journal in JetStream needs nats.url in the configuration");
  const { url, password_file: passwordFile } = config.nats;
  const user = as ?? config.nats.user;
  const password = passwordFile === undefined ? {} : { pass: readFileSync(passwordFile, "utf8").trim() };
  try {
    return await connect({
      servers: url,
      name: `interlock ${name}`,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 250,
      noAsyncTraces: true, // a stack trace for every request, also for those that succeed
      ...(user === undefined ? {} : { user, ...password, inboxPrefix: `_INBOX_${user}` }),
    });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new Error(`NATS at ${url} does not answer (${why}): start it, or mend nats.url.`, { cause: error });
  }
}

function readTls(tls: NonNullable<Config["tls"]>): { cert: Buffer; key: Buffer; clientCa?: Buffer } {
  return {
    cert: readFileSync(tls.cert),
    key: readFileSync(tls.key),
    ...(tls.client_ca === undefined ? {} : { clientCa: readFileSync(tls.client_ca) }),
  };
}

function hosted(of: Service, started: AsyncDisposable): { service: Service } & AsyncDisposable {
  return { service: of, [Symbol.asyncDispose]: () => started[Symbol.asyncDispose]() };
}

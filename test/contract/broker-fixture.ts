import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DescService } from "@bufbuild/protobuf";
import { fromBinary } from "@bufbuild/protobuf";
import { v7 as uuidv7 } from "uuid";
import { expect, onTestFinished } from "vitest";
import { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import {
  BrokerService,
  type Call,
  CallState,
  type ExecuteRequest,
  type Receipt,
  ReceiptSchema,
} from "../../proto/interlock/v1/broker_pb.ts";
import { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import { PdpService } from "../../proto/interlock/v1/pdp_pb.ts";
import { RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import { type CheckEdit, noEdits } from "../../services/approvals/desk.ts";
import { giveNotice } from "../../services/approvals/notice.ts";
import { NOBODY, type People } from "../../services/approvals/people.ts";
import { type Approvals, startApprovals } from "../../services/approvals/service.ts";
import { loadCatalog } from "../../services/broker/catalog.ts";
import { type BrokerOptions, startBroker } from "../../services/broker/service.ts";
import { loadBudgets } from "../../services/ledger/budgets.ts";
import { startLedger } from "../../services/ledger/service.ts";
import { startPdp } from "../../services/pdp/service.ts";
import { startRunner } from "../../services/runner/service.ts";
import { configSchema } from "../../services/shared/config.ts";
import { newId } from "../../services/shared/ids.ts";
import { type Journal, JournalUnavailable, type NewRecord } from "../../services/shared/journal/journal.ts";
import { openSqliteJournal } from "../../services/shared/journal/sqlite.ts";
import { silentLog } from "../../services/shared/log.ts";
import { RpcError } from "../../services/shared/rpc/errors.ts";
import { localClient } from "../../services/shared/rpc/local.ts";
import { type Service, service } from "../../services/shared/rpc/service.ts";
import type { Caller, CallOptions, Client } from "../../services/shared/rpc/types.ts";
import { newSigningKeyPem, signerFromPem, verifierOf } from "../../services/shared/signing.ts";
import { cuttable, throwing } from "./broker-cut.ts";
import { Sandbox, SECRET } from "./broker-sandbox.ts";

/** A broker among the real services on a real journal, with a sandbox that the test can hold and services it can cut. */

export const REPEAT_LIMIT = 3;
/** The loop rules as they are by default; the broker of these tests lets calls with equal answers repeat. */
export const LOOPS = configSchema.parse({}).loops;

export type BrokerChange = Partial<Pick<BrokerOptions, "loops">>;

export const AGENT: Caller = { kind: "agent", tenant: "demo", agent: "demo-agent" };
export const OTHER_AGENT: Caller = { kind: "agent", tenant: "demo", agent: "other-agent" };
export const FOREIGN_AGENT: Caller = { kind: "agent", tenant: "other", agent: "demo-agent" };
export const OPERATOR: Caller = { kind: "person", tenant: "demo", name: "olga", roles: ["operator"], groups: [] };
export const LEAD: Caller = { kind: "person", tenant: "demo", name: "lena", roles: ["reviewer"], groups: ["leads"] };
const BROKER: Caller = { kind: "service", name: "broker" };

const POLICY = `
p, demo, *, t.echo, allow, true, Anyone may echo.
p, demo, *, t.twin, allow, true, Anyone may echo twice.
p, demo, *, t.dear, allow, true, Anyone may spend.
p, demo, *, t.held, allow, true, Anyone may wait.
p, demo, *, t.safe, allow, true, Anyone may wait safely.
p, demo, *, t.touch, allow, true, Anyone may read private data.
p, demo, *, t.send, deny, "contains(r.labels, 'private-data')", "A session that has read private data may not send."
p, demo, *, t.send, allow, true, Anyone may send.
p, demo, *, t.ask, require_approval, true, A lead says yes first., approver_group=leads;quorum=1;ttl=1h
p, demo, *, t.asktouch, require_approval, true, A lead says yes first., approver_group=leads;quorum=1;ttl=1h
p, demo, *, t.never, deny, true, Nobody may.
`;

const BUDGETS = `
budgets:
  - { name: usd, tenant: demo, scope: session, unit: usd_micros, limit: 1_000 }
  - { name: calls, tenant: demo, scope: tenant, unit: calls, limit: 1_000_000 }
`;

const PRICES: Readonly<Record<string, number>> = {
  "t.dear": 400,
  "t.ask": 100,
  "t.asktouch": 100,
  "t.held": 100,
  "t.safe": 100,
};
function manifestOf(tool: string): string {
  return `name: ${tool}
version: 1.0.0
description: A tool of this test.
impact: low
idempotent: ${tool === "t.safe"}
labels: [${tool.endsWith("touch") ? "private-data" : ""}]
arguments:
  type: object
  properties: { n: { type: integer }, text: { type: string } }
  additionalProperties: false
sandbox: { kind: builtin, name: echo }
limits: { wall_ms: 5000 }
price: { usd_micros: ${PRICES[tool] ?? 0} }
`;
}

const TOOLS = ["t.echo", "t.twin", "t.dear", "t.held", "t.safe", "t.touch", "t.send", "t.ask", "t.asktouch", "t.never"];

export type PartName = "pdp" | "ledger" | "approvals" | "runner";

export class World implements AsyncDisposable {
  readonly sandbox = new Sandbox();
  readonly directory = mkdtempSync(join(tmpdir(), "interlock-broker-"));
  readonly journal: Journal;
  /** Services that do not answer. */
  readonly down = new Set<PartName>();
  /** Appends that fail, without landing. */
  breaks: (stream: string, events: readonly { readonly kind?: string }[]) => boolean = () => false;
  /** Added to the clock of all services. */
  skewMs = 0;
  readonly #signer = signerFromPem(newSigningKeyPem());
  readonly #verifier = verifierOf([this.#signer.publicKey]);
  readonly #services = new Map<PartName, Service>();
  readonly #stack = new AsyncDisposableStack();

  constructor() {
    this.#stack.defer(() => rmSync(this.directory, { recursive: true }));
    const real = openSqliteJournal({
      path: join(this.directory, "journal.db"),
      synchronous: "normal",
      readOnly: false,
    });
    this.#stack.use(real);
    this.journal = new Proxy(real, {
      get: (target, key) => {
        const member: unknown = Reflect.get(target, key);
        if (typeof member !== "function") return member;
        if (key !== "append") return member.bind(target);
        return (stream: string, head: unknown, records: readonly NewRecord[]) => {
          const events = records.map(({ body }) => JSON.parse(Buffer.from(body).toString("utf8")));
          if (this.breaks(stream, events)) return Promise.reject(new JournalUnavailable("cut by the test"));
          return member.call(target, stream, head, records);
        };
      },
    });
  }

  readonly now = (): number => Date.now() + this.skewMs;

  async start(): Promise<void> {
    const { directory, journal, now } = this;
    const log = silentLog;
    mkdirSync(join(directory, "tools"));
    copyFileSync(new URL("../../policies/model.conf", import.meta.url), join(directory, "model.conf"));
    writeFileSync(join(directory, "policy.csv"), POLICY);
    writeFileSync(join(directory, "budgets.yaml"), BUDGETS);
    for (const tool of TOOLS) writeFileSync(join(directory, "tools", `${tool}.yaml`), manifestOf(tool));
    const pdp = this.#stack.use(
      await startPdp({ tools: [], trustedKeys: [], policyDir: directory, journal, now, log }),
    );
    const budgets = loadBudgets(join(directory, "budgets.yaml"));
    const ledger = this.#stack.use(await startLedger({ journal, budgets, now, log }));
    const approvals = this.#stack.use(await this.startApprovals());
    const runner = this.#stack.use(
      await startRunner({
        ...{
          runnerId: "runner-1",
          bootId: newId(),
          backends: [this.sandbox],
          maxConcurrent: 10_000,
          drainMs: 0,
          now,
          log,
        },
        trustedKeys: [this.#signer.publicKey],
      }),
    );
    this.#services.set("pdp", service(PdpService, pdp.handlers));
    this.#services.set("ledger", service(LedgerService, ledger.handlers));
    this.#services.set("approvals", service(ApprovalsService, approvals.handlers));
    this.#services.set("runner", service(RunnerService, runner.handlers));
  }

  /** The people as a test has them; `brokers` answer what they ask about a call. */
  people: People = NOBODY;
  #brokers: Service[] = [];

  /** One more replica of approvals, on the journal of this world. */
  async startApprovals(): Promise<Approvals> {
    const { journal, now } = this;
    const checkEdit: CheckEdit = async (tenant, ref, argumentsJson) => {
      const broker = this.#brokers.at(-1);
      if (broker === undefined) return await noEdits();
      const asked = localClient<typeof BrokerService>(broker, { caller: { kind: "service", name: "approvals" } });
      return await asked.checkEdit({ tenant, ref, argumentsJson });
    };
    return await startApprovals({
      ...{ journal, now, newId: uuidv7, log: silentLog, checkEdit },
      people: this.people,
      notice: (notice) => giveNotice([], notice),
      loginLink: () => ({ url: "https://page.example/", untilMs: now() }),
    });
  }

  /** The policy from here on, by another start of the pdp. */
  async changePolicy(from: string, to: string): Promise<void> {
    writeFileSync(join(this.directory, "policy.csv"), POLICY.replaceAll(from, to));
    const pdp = this.#stack.use(
      await startPdp({
        tools: [],
        trustedKeys: [],
        policyDir: this.directory,
        journal: this.journal,
        now: this.now,
        log: silentLog,
      }),
    );
    this.#services.set("pdp", service(PdpService, pdp.handlers));
  }

  /** One more replica of the broker, on the journal and the services of this world. */
  async startBroker(change: BrokerChange = {}): Promise<Replica> {
    const cut = new AbortController();
    const client = <S extends DescService>(desc: S, name: PartName) => this.client(desc, name, BROKER, cut.signal);
    const broker = await startBroker({
      ...{ journal: cuttable(this.journal, cut.signal), now: this.now, newId, log: silentLog },
      signer: this.#signer,
      pdp: client(PdpService, "pdp"),
      ledger: client(LedgerService, "ledger"),
      approvals: client(ApprovalsService, "approvals"),
      runner: client(RunnerService, "runner"),
      catalog: loadCatalog(join(this.directory, "tools")),
      secrets: [SECRET],
      loops: { ...LOOPS, exact_repeat_limit: REPEAT_LIMIT, no_progress: {} },
      knownValues: ["@corp.example"],
      ...change,
    });
    const here = service(BrokerService, broker.handlers);
    this.#brokers.push(here);
    let stopped: Promise<void> | undefined;
    const stop = (): Promise<void> => (stopped ??= Promise.resolve(broker[Symbol.asyncDispose]()));
    this.#stack.defer(stop);
    return {
      as: (caller) => localClient<typeof BrokerService>(here, { caller }),
      crash: () => cut.abort(new Error("crashed by the test")),
      [Symbol.asyncDispose]: stop,
    };
  }

  /** What another start of the runner would be: permits of the old one are worth nothing there. */
  async restartRunner(): Promise<void> {
    const { sandbox, now } = this;
    const runner = await startRunner({
      ...{ runnerId: "runner-1", bootId: newId(), backends: [sandbox], maxConcurrent: 10_000, now, log: silentLog },
      trustedKeys: [this.#signer.publicKey],
    });
    this.#stack.use(runner);
    this.#services.set("runner", service(RunnerService, runner.handlers));
  }

  /** Reaches the service as it is then; refuses every call while it is `down`, or once its user is cut off. */
  client<S extends DescService>(_: S, name: PartName, caller: Caller, cut: AbortSignal = NEVER): Client<S> {
    return new Proxy({} as Client<S>, {
      get:
        (_target, method: string) =>
        (request: unknown, options: CallOptions = {}) => {
          const part = this.#services.get(name);
          if (part === undefined) throw new Error(`${name} has not been started`);
          const streams = method === "run" || method === "watchResolutions";
          if (this.down.has(name) || cut.aborted) return streams ? throwing(isDown()) : Promise.reject(isDown());
          const reach = Reflect.get(localClient<S>(part, { caller }), method) as (
            ...given: readonly unknown[]
          ) => unknown;
          const signal = AbortSignal.any([cut, options.signal ?? NEVER]);
          const answer = reach(request, { ...options, signal });
          if (method === "watchResolutions") return this.#counting(answer as AsyncIterable<unknown>);
          return streams ? answer : this.#afterAnswer(method, answer as Promise<unknown>);
        },
    });
  }

  /** Runs once a service has answered the broker, before the broker hears of it. */
  beforeHearing: (method: string) => Promise<void> = async () => {};
  /** How many of people's answers brokers have taken. */
  taken = 0;

  async #afterAnswer(method: string, answer: Promise<unknown>): Promise<unknown> {
    const answered = await answer;
    await this.beforeHearing(method);
    return answered;
  }

  async *#counting(items: AsyncIterable<unknown>): AsyncGenerator<unknown> {
    for await (const item of items) {
      yield item;
      this.taken++;
    }
  }

  get reviewer(): Client<typeof ApprovalsService> {
    return this.client(ApprovalsService, "approvals", LEAD);
  }

  async approve(call: Call | undefined): Promise<void> {
    const { ref, argumentsHash } = called(call);
    await this.reviewer.approve({ approvalId: ref?.callId ?? "", argumentsHash });
  }

  /** Of all budgets: `spent/held`, with the subject where it has one of its own. */
  async money(): Promise<Readonly<Record<string, string>>> {
    const { budgets } = await this.client(LedgerService, "ledger", BROKER).listBudgets({ tenant: "demo" });
    const shown = budgets.map(({ name, subject, spent, held }) => [
      name === "usd" ? subject : name,
      `${spent}/${held}`,
    ]);
    return Object.fromEntries(shown);
  }

  /** @throws Error when it is not signed by the broker. */
  receiptOf(call: Call | undefined): Receipt {
    const signed = call?.receipt;
    if (signed === undefined) throw new Error("the call has no receipt");
    const verdict = this.#verifier.verify("receipt", signed);
    if (verdict !== "ok") throw new Error(verdict);
    return fromBinary(ReceiptSchema, signed.payload);
  }

  /** The kinds of a session's records, in order. */
  async records(session: string): Promise<string[]> {
    const kinds: string[] = [];
    for await (const { body } of this.journal.read(`session.demo.${session}`, 0)) {
      kinds.push(JSON.parse(Buffer.from(body).toString("utf8")).kind);
    }
    return kinds;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

export type Replica = AsyncDisposable & {
  readonly as: (caller: Caller) => Client<typeof BrokerService>;
  /** Nothing that it does gets out from here on, and what it has under way elsewhere is cut. */
  readonly crash: () => void;
};

const NEVER = new AbortController().signal;

function isDown(): RpcError {
  return new RpcError({ code: "UNAVAILABLE", reason: "CUT", message: "Cut by the test." });
}

/** A world of this test's own, stopped and removed with it. */
export async function newWorld(): Promise<World> {
  const world = new World();
  onTestFinished(() => world[Symbol.asyncDispose]());
  await world.start();
  return world;
}

export function called(call: Call | undefined): Call {
  if (call === undefined) throw new Error("it was answered without a call");
  return call;
}

const STATE_NAMES = new Map<CallState, string>(Object.entries(CallState).map(([name, state]) => [state, name]));

export function stateOf(call: Call | undefined): string {
  return STATE_NAMES.get(called(call).state) ?? "unknown";
}

/** What it was refused with; fails the test when it was not. */
export async function refusalOf(answer: Promise<unknown>): Promise<RpcError> {
  try {
    await answer;
  } catch (error) {
    if (error instanceof RpcError) return error;
    throw error;
  }
  throw new Error("it was not refused");
}

/** For expect.poll. */
export const SOON = { timeout: 10_000, interval: 10 };

/** A world with one broker, and its agent in session s1. */
export async function open(change: BrokerChange = {}) {
  const world = await newWorld();
  const replica = await world.startBroker(change);
  const agent = replica.as(AGENT);
  const execute = async (
    tool: string,
    args: object = {},
    more: Partial<Pick<ExecuteRequest, "session" | "idempotencyKey" | "wait">> = {},
  ) => called((await agent.execute({ session: "s1", tool, argumentsJson: JSON.stringify(args), ...more })).call);
  const get = async (callId: string) => called((await agent.get({ ref: { session: "s1", callId } })).call);
  return { world, replica, agent, execute, get };
}

/** Waits until the ledger says so: what a call leaves there follows its answer. */
export async function settled(world: World, money: Readonly<Record<string, string>>): Promise<void> {
  await expect.poll(() => world.money(), SOON).toMatchObject(money);
}

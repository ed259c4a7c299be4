import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import type {
  BrokerService,
  KillSwitchSchema,
  ToolSchema,
  WatchResponseSchema,
} from "../../proto/interlock/v1/broker_pb.ts";
import type { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import type { PdpService } from "../../proto/interlock/v1/pdp_pb.ts";
import type { RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import { Executor } from "../shared/executor.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { JsonObject } from "../shared/json.ts";
import type { Log } from "../shared/log.ts";
import { maskOf } from "../shared/mask.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller, Client, HandlerContext, Handlers } from "../shared/rpc/types.ts";
import type { Signer } from "../shared/signing.ts";
import { Calls } from "./calls.ts";
import type { Catalog, Tool } from "./catalog.ts";
import { switchAgainst } from "./control.ts";
import { declare } from "./declarations.ts";
import type { LoopLimits } from "./guard/loops.ts";
import { NO_PROVENANCE } from "./guard/provenance.ts";
import { normalise } from "./guard/tokens.ts";
import { Waiters } from "./live.ts";
import { mayCall } from "./nested.ts";
import { OpenCalls } from "./open-calls.ts";
import { Outbox } from "./outbox.ts";
import { Pipeline } from "./pipeline.ts";
import { listedPrice } from "./price.ts";
import { type Place, parsePlace, Records } from "./records.ts";
import { Recovery } from "./recovery.ts";
import { serviceDown } from "./refusals.ts";
import { findTool, parseAgent, parsePrincipal, parseWait } from "./request.ts";
import { followResolutions } from "./resolutions.ts";
import { Runners } from "./runners.ts";
import { sessionDecider } from "./session.ts";
import { serveSession } from "./session-stream.ts";
import { Switches } from "./switches.ts";
import { fromDecision, toAmount, toCall, toCallEvent, toFacts, toTimestamp, toToolFacts } from "./wire.ts";

export type BrokerOptions = {
  readonly journal: Journal;
  readonly pdp: Client<typeof PdpService>;
  readonly ledger: Client<typeof LedgerService>;
  readonly approvals: Client<typeof ApprovalsService>;
  readonly runner: Client<typeof RunnerService>;
  readonly catalog: Catalog;
  readonly signer: Signer;
  /** Masked wherever they appear in a tool's output. */
  readonly secrets: readonly string[];
  readonly loops: LoopLimits;
  readonly knownValues: readonly string[];
  readonly now: () => number;
  /** Sortable and never twice: a UUIDv7. */
  readonly newId: () => string;
  readonly log: Log;
};

/** How long calls under way may still come to an end once the broker stops. */
const DRAIN_MS = 5_000;

export type Broker = { readonly handlers: Handlers<typeof BrokerService> } & AsyncDisposable;

/** The front door. @throws RpcError when the journal does not answer: without it nothing may run. */
export async function startBroker(options: BrokerOptions): Promise<Broker> {
  const { journal, pdp, ledger, approvals, runner, catalog, signer, now, newId, log } = options;
  const stack = new AsyncDisposableStack();
  const sessions = stack.use(new Executor({ journal, decider: sessionDecider, now }));
  const outbox = stack.use(new Outbox(log));
  const waiters = new Waiters();
  const stopSwitched = (): void => {
    for (const { call, live } of pipeline.live.values()) {
      const found = switchAgainst(switches.state, call.principal, call.tool);
      if (found !== undefined) live.cancel(`An operator stopped it: ${found.reason}`);
    }
  };
  let onChange: () => void = () => {};
  const switches = stack.use(await Switches.open({ journal, now, log, onChange: () => onChange() }));
  const runners = new Runners({ runner, signer, newId, now, log });
  const stop = new AbortController();
  const pipeline = new Pipeline({
    stopping: stop.signal,
    ...{ sessions, pdp, ledger, approvals, runners, signer, outbox, waiters, newId, now, log },
    switches: () => switches.state,
    mask: maskOf(options.secrets),
    nest: (parent, asked, signal) => calls.perform(parent, asked, signal),
    loops: options.loops,
    knownValues: options.knownValues.map(normalise),
  });
  onChange = stopSwitched;
  const records = new Records({ sessions, journal, waiters });
  const recovery = new Recovery({ sessions, records, pipeline, catalog });
  const calls = new Calls({ catalog, sessions, pipeline, records, recovery, newId, now });
  const openCalls = new OpenCalls({
    ...{ journal, pipeline, recovery, waiters, outbox, now, log },
    charge: ({ callId, call, charged }) => {
      const { tenant } = call.principal;
      const request = { tenant, reservationId: callId, amounts: charged.map(toAmount), late: true };
      outbox.send(`charge ${callId}`, () => ledger.commit(request, { deadlineMs: Date.now() + 2_500 }));
    },
  });
  openCalls.start();
  stack.use(openCalls);
  const following = followResolutions({ journal, approvals, recovery, log }, stop.signal);
  stack.defer(async () => {
    stop.abort();
    await following;
    await pipeline.drained(DRAIN_MS);
  });
  return {
    handlers: handlersOf({ calls, records, pipeline, switches, catalog, pdp, now }),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

type Parts = {
  readonly calls: Calls;
  readonly records: Records;
  readonly pipeline: Pipeline;
  readonly switches: Switches;
  readonly catalog: Catalog;
  readonly pdp: Client<typeof PdpService>;
  readonly now: () => number;
};

function handlersOf(parts: Parts): Handlers<typeof BrokerService> {
  const { calls, records, switches } = parts;
  return {
    execute: async (request, context) => {
      const principal = parsePrincipal(parseAgent(context.caller), request.session, request.user);
      const waitMs = parseWait(request.wait);
      return { call: toCall(await calls.execute(calls.resolve(principal, request), ioOf(context), waitMs)) };
    },
    session: (requests, context) => serveSession(calls, requests, context),
    watch: ({ ref }, context) => watch(parts, parsePlace(ref, context.caller), context.signal),
    get: async ({ ref }, { caller, signal }) => ({ call: toCall(await records.view(parsePlace(ref, caller), signal)) }),
    cancel: async ({ ref, reason }, { caller }) => {
      const who = caller.kind === "person" ? caller.name : "The agent";
      const why = reason === "" ? `${who} cancelled the call.` : `${who} cancelled the call: ${reason.slice(0, 500)}`;
      return { call: toCall(await calls.cancel(parsePlace(ref, caller), why)) };
    },
    listTools: async ({ typesFor }, context) => {
      const tools = await listTools(parts, context);
      return { tools, types: typesFor === "" ? "" : declareFor(tools, findTool(parts.catalog, typesFor)) };
    },
    setKillSwitch: async ({ scope, on, reason }, { caller }) => {
      const person = parseOperator(caller);
      await switches.set(person, scope, on, reason);
      return { active: activeSwitches(switches, person.tenant) };
    },
    listKillSwitches: async (_, { caller }) => ({ active: activeSwitches(switches, parseOperator(caller).tenant) }),
  };
}

function ioOf({ signal, deadlineMs, traceParent }: HandlerContext) {
  return { signal, traceParent, ...(deadlineMs === undefined ? {} : { deadlineMs }) };
}

/** What has happened, what happens, and how it stands: first, and again when it has ended. */
async function* watch(
  { records, pipeline }: Parts,
  place: Place,
  signal: AbortSignal,
): AsyncGenerator<MessageInitShape<typeof WatchResponseSchema>> {
  const first = await records.view(place, signal);
  yield { kind: { case: "call", value: toCall(first) } };
  if (first.progress.kind === "ended") return;
  let pending: MessageInitShape<typeof WatchResponseSchema>[] = [];
  let wake: (() => void) | undefined;
  const live = pipeline.live.get(place.callId)?.live;
  const unlisten = live?.listen((event) => {
    pending.push({ kind: { case: "event", value: toCallEvent(event) } });
    if (pending.length > MAX_UNSEEN) pending = pending.slice(-MAX_UNSEEN / 2); // a slow watcher loses, nobody waits
    wake?.();
  });
  let over = false;
  const ended = records.ended(place, signal).finally(() => {
    over = true;
    wake?.();
  });
  ended.catch(() => {}); // awaited below
  try {
    while (!over || pending.length > 0) {
      const ready = pending;
      pending = [];
      yield* ready;
      if (!over && pending.length === 0) await new Promise<void>((resolve) => (wake = resolve));
    }
    yield { kind: { case: "call", value: toCall(await ended) } };
  } finally {
    unlisten?.();
  }
}

const MAX_UNSEEN = 4096;

type Listed = MessageInitShape<typeof ToolSchema>;

/** The tools that policy could let the caller call; an operator sees them all. */
async function listTools(parts: Parts, context: HandlerContext): Promise<Listed[]> {
  const { catalog, pdp, now } = parts;
  const tools = catalog.list();
  const { caller } = context;
  if (caller.kind !== "agent") return tools.map((tool) => toTool(tool, false));
  const principal = { tenant: caller.tenant, agent: caller.agent, session: "", user: "" };
  const seen = { labels: [], loop: "clear", provenance: NO_PROVENANCE, nowMs: now() } as const;
  const facts = tools.map((tool) => toFacts({ principal, argumentsJson: "{}" }, tool, seen));
  const { signal, traceParent } = context;
  const asked = pdp.decidePossible({ facts }, { signal, traceParent, deadlineMs: Date.now() + 2_500 });
  const { decisions } = await asked.catch((error: unknown) => {
    throw serviceDown("pdp", RpcError.from(error));
  });
  return tools.flatMap((tool, i) => {
    const { kind } = fromDecision(decisions[i]);
    return kind === "deny" ? [] : [toTool(tool, kind === "require_approval")];
  });
}

/** Of the caller's tools, those that the programs of this one may call. */
function declareFor(tools: readonly Listed[], program: Tool): string {
  const callable = tools.filter(({ facts }) => mayCall(program, facts?.name ?? ""));
  return declare(
    callable.map(({ facts, description = "", argumentsSchemaJson = "{}", needsApproval = false }) => ({
      ...{ name: facts?.name ?? "", description, needsApproval },
      schema: JSON.parse(argumentsSchemaJson) as JsonObject,
    })),
  );
}

function toTool(tool: Tool, needsApproval: boolean): MessageInitShape<typeof ToolSchema> {
  const { manifest, digest } = tool;
  return {
    facts: toToolFacts(manifest, digest),
    description: manifest.description,
    argumentsSchemaJson: JSON.stringify(manifest.arguments),
    needsApproval,
    price: listedPrice(tool).map(toAmount),
  };
}

function parseOperator(caller: Caller): Extract<Caller, { kind: "person" }> {
  if (caller.kind === "person" && caller.roles.includes("operator")) return caller;
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "OPERATOR_ONLY",
    message: "Only operators turn kill switches; use an operator's key.",
  });
}

function activeSwitches(switches: Switches, tenant: string): MessageInitShape<typeof KillSwitchSchema>[] {
  return switches
    .list(tenant)
    .map(({ scope, reason, author, timeMs }) => ({ scope, reason, author, time: toTimestamp(timeMs) }));
}

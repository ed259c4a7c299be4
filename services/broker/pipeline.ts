import type { ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import type { LedgerService } from "../../proto/interlock/v1/ledger_pb.ts";
import type { PdpService } from "../../proto/interlock/v1/pdp_pb.ts";
import type { Executor } from "../shared/executor.ts";
import type { Log } from "../shared/log.ts";
import type { Mask } from "../shared/mask.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Client } from "../shared/rpc/types.ts";
import type { Signer } from "../shared/signing.ts";
import { AtStage, asking, askOptions } from "./asking.ts";
import { advance, begin, type CallCommand, type CallEvent, type CallProgress, ENDING, type Step } from "./call.ts";
import { logCall } from "./call-log.ts";
import type { Tool } from "./catalog.ts";
import { type ControlState, switchAgainst } from "./control.ts";
import { Ending, priceOf } from "./ending.ts";
import { CLEAR, type LoopLimits, withLoop } from "./guard/loops.ts";
import { NO_PROVENANCE, provenanceOfCall, withProvenance } from "./guard/provenance.ts";
import { Holds, unlessOver } from "./holds.ts";
import { LiveCall, Waiters } from "./live.ts";
import { maskResult } from "./mask.ts";
import { redactResult } from "./measures.ts";
import type { Call, CallView, Decision, Refusal, RunResult } from "./model.ts";
import { streamOf } from "./model.ts";
import { type Asked, maxCallsOf, withCalls } from "./nested.ts";
import { giveNotice } from "./notices.ts";
import { type Outbox, pause } from "./outbox.ts";
import { type Question, toApproval } from "./question.ts";
import { guardRefusal, recordRefusal, serviceDown } from "./refusals.ts";
import { RUN_SLACK_MS, type Runners, type RunOutcome, wallMsOf } from "./runners.ts";
import {
  type Basis,
  glance,
  lastSteps,
  type SessionCommand,
  type SessionEvent,
  type SessionRefusal,
  type SessionState,
} from "./session.ts";
import { fromDecision, toFacts, toRefusal } from "./wire.ts";
import {
  approvalMs,
  asksMore,
  type CallIo,
  parkedView,
  type Standing,
  throwIfOver,
  type Work,
  type WorkChange,
} from "./work.ts";

export type Sessions = Executor<SessionState, SessionCommand, SessionEvent, SessionRefusal>;

export type PipelineOptions = {
  readonly sessions: Sessions;
  /** The kill switches as they are now. */
  readonly switches: () => ControlState;
  readonly pdp: Client<typeof PdpService>;
  readonly ledger: Client<typeof LedgerService>;
  readonly approvals: Client<typeof ApprovalsService>;
  readonly runners: Runners;
  readonly signer: Signer;
  readonly mask: Mask;
  readonly outbox: Outbox;
  readonly waiters: Waiters;
  readonly loops: LoopLimits;
  /** What the operator vouches for in arguments: values, and `@domain` for every address there. */
  readonly knownValues: readonly string[];
  /** Performs a call that the program of another makes. @throws RpcError for what was refused. */
  readonly nest: (parent: Work, asked: Asked, signal: AbortSignal) => Promise<CallView>;
  /** Aborts when this broker stops: then nothing is waited for any more. */
  readonly stopping: AbortSignal;
  readonly newId: () => string;
  readonly now: () => number;
  readonly log: Log;
};

const PATIENCE_MS = 120_000;
const DRAIN_LOOK_MS = 20;
const NEVER = new AbortController().signal;
/** Once admitted: well before other brokers take the call for lost. */
const RUN_PATIENCE_MS = RUN_SLACK_MS / 3;

/** The shell around `advance`: performs each command, feeds back what came of it. */
export class Pipeline {
  readonly #options: PipelineOptions;
  readonly #ending: Ending;
  readonly #holds: Holds;
  /** The calls this process works on. */
  readonly live = new Map<string, Work>();
  /** Idempotency keys of calls that are not on record yet: who repeats one waits, and so holds no money of its own. */
  readonly #keys = new Set<string>();
  readonly #keyWaiters = new Waiters();

  constructor(options: PipelineOptions) {
    this.#options = options;
    this.#ending = new Ending(options);
    this.#holds = new Holds(options);
  }

  /** Takes a new call as far as it can go. */
  async start(call: Call, tool: Tool, io: CallIo, watch?: (live: LiveCall) => void): Promise<Standing> {
    const work = this.newWork(call, tool, io);
    watch?.(work.live);
    if (call.idempotencyKey === "") return await this.drive(work, begin());
    const key = `${streamOf(call.principal)} ${call.idempotencyKey}`;
    while (this.#keys.has(key)) await this.#keyWaiters.next(key, io.signal);
    this.#keys.add(key);
    const freeKey = (): void => {
      if (this.#keys.delete(key)) this.#keyWaiters.notify(key);
    };
    return await this.drive({ ...work, onRecorded: freeKey }, begin());
  }

  newWork(call: Call, tool: Tool, io: CallIo, more: WorkChange = {}): Work {
    const { newId, now } = this.#options;
    return {
      call,
      tool,
      io,
      live: new LiveCall(call.callId, now),
      attempt: newId(),
      labels: [],
      loop: CLEAR,
      provenance: NO_PROVENANCE,
      budgets: [],
      spent: {},
      ...more,
    };
  }

  /** Resolves once this process does not work on the call. */
  async letGo(callId: string): Promise<void> {
    const { waiters, stopping } = this.#options;
    while (this.live.has(callId)) await waiters.next(callId, stopping);
  }

  /** Resolves once this process works on no call, or after so long. */
  async drained(ms: number): Promise<void> {
    const untilMs = performance.now() + ms;
    while (this.live.size > 0 && performance.now() < untilMs) await pause(DRAIN_LOOK_MS, NEVER);
  }

  /** Goes on from a step until the call has ended, waits for people, or turns out to be another's. */
  async drive(work: Work, from: Step): Promise<Standing> {
    const { callId } = work.call;
    const { waiters } = this.#options;
    this.live.set(callId, work);
    const startedMs = performance.now();
    try {
      let step = from;
      while (step.command.kind !== "none" && step.command.kind !== "yield") {
        if (step.command.kind === "hold") work.live.enter("reserve");
        if (step.state.kind === "active") work.live.enter(step.state.at);
        step = advance(step.state.kind === "parked" ? ENDING : step.state, await this.#perform(work, step));
        if (step.command.kind === "run") work.onRecorded?.();
      }
      if (step.command.kind === "yield") this.#ending.undo(work, step.command.undo, []);
      return this.#standing(work, step.state);
    } finally {
      this.live.delete(callId);
      work.onRecorded?.();
      waiters.notify(callId);
      logCall(this.#options.log, work, performance.now() - startedMs);
    }
  }

  #standing(work: Work, state: CallProgress): Standing {
    switch (state.kind) {
      case "ended":
        if (work.ended === undefined) throw new Error("a call ended without a record of it");
        return { kind: "ended", view: work.ended };
      case "parked":
        return { kind: "parked", view: parkedView(work) };
      case "following":
        return state;
      case "active":
        throw new Error(`a call was left at ${state.at}`);
    }
  }

  async #perform(work: Work, step: Step): Promise<CallEvent> {
    const { command, state } = step;
    const { stopping } = this.#options;
    const at = state.kind === "active" ? state.at : "settle";
    if (command.kind === "yield" || command.kind === "none") throw new Error(`${command.kind} is nothing to perform`);
    if (command.kind === "end") return await this.#ending.end(work, command);
    const untilMs = performance.now() + patienceOf(work, command);
    for (;;) {
      try {
        if (command.kind !== "filter") throwIfOver(work); // what has run is always settled
        return await this.#attempt(work, command);
      } catch (thrown) {
        const stage = thrown instanceof AtStage ? thrown.stage : at;
        const error = RpcError.from(thrown instanceof AtStage ? thrown.cause : thrown);
        if (error.code === "INTERNAL")
          this.#options.log.error({ err: error, stage, callId: work.call.callId }, "call.fault");
        const hopeful = error.code === "UNAVAILABLE" || error.code === "DEADLINE_EXCEEDED";
        if (!hopeful || performance.now() >= untilMs) return { kind: "refused", refusal: toRefusal(stage, error) };
        await pause(250, stopping);
        if (stopping.aborted) throw error; // it stays as it is recorded, for the next broker to go on with
      }
    }
  }

  async #attempt(work: Work, command: Doable): Promise<CallEvent> {
    switch (command.kind) {
      case "guard":
        return await this.#guard(work);
      case "decide":
        return await this.#decide(work);
      case "reserve":
        return await this.#reserve(work, command.decision);
      case "hold":
        return await this.#hold(work, command.decision);
      case "park":
        return await this.#park(work, command.decision);
      case "admit":
        return await this.#admit(work, command.decision);
      case "run":
        return await this.#run(work, command.decision);
      case "filter":
        return this.#filter(work, command.result);
    }
  }

  async #guard(work: Work): Promise<CallEvent> {
    const { call } = work;
    const { sessions, switches, loops, knownValues } = this.#options;
    const thrown = switchAgainst(switches(), call.principal, call.tool);
    if (thrown !== undefined) return refused(guardRefusal({ kind: "killed", ...thrown }));
    const seen = await sessions.peek(
      streamOf(call.principal),
      (state) => ({
        ...glance(state, call, loops),
        provenance: provenanceOfCall(state.known, call, work.tool.manifest, knownValues),
      }),
      this.#within(work),
    );
    work.labels = seen.labels;
    work.loop = seen.loop;
    work.provenance = seen.provenance;
    work.spent = seen.spent;
    if (seen.foreign) return refused(guardRefusal({ kind: "foreign_session" }));
    if (seen.earlier !== undefined) {
      const { callId, same } = seen.earlier;
      return same ? { kind: "repeated", callId } : refused(guardRefusal({ kind: "key_mismatch", callId }));
    }
    if (seen.loop.level === "stopped")
      return refused(guardRefusal({ kind: "looping", verdict: seen.loop, limit: loops.exact_repeat_limit }));
    return { kind: "cleared" };
  }

  async #decide(work: Work): Promise<CallEvent> {
    const { call, tool, labels, askedUnder } = work;
    const { pdp, now } = this.#options;
    const { loop, provenance, spent } = work;
    const facts = toFacts(call, tool, { labels, loop: loop.level, provenance, spent, nowMs: now() });
    const response = await asking("pdp", pdp.decide({ facts }, askOptions(work.io)));
    const decision = withProvenance(withLoop(fromDecision(response.decision), loop), provenance);
    if (askedUnder !== undefined && asksMore(decision, askedUnder))
      return refused(guardRefusal({ kind: "policy_mismatch" }));
    work.decision = decision;
    if (decision.kind === "require_approval" && work.io.asksNobody === true) {
      return refused(guardRefusal({ kind: "approval_needed", tool: call.tool, reasons: decision.reasons }));
    }
    return { kind: "decided", decision };
  }

  async #reserve(work: Work, decision: Decision): Promise<CallEvent> {
    work.budgets = await this.#holds.reserve(work, decision);
    return { kind: "reserved" };
  }

  /** Both are asked for in one turn, so that they share a commit where they share a journal. */
  async #hold(work: Work, decision: Decision): Promise<CallEvent> {
    await asking("runner", this.#options.runners.current());
    const [reserved, admitted] = await Promise.allSettled([
      this.#holds.reserve(work, decision).catch((error: unknown) => unlessOver(work, error)),
      this.#admission(work, decision),
    ]);
    if (admitted.status === "fulfilled" && admitted.value.kind !== "admitted") return admitted.value;
    if (reserved.status === "rejected") throw reserved.reason;
    if (admitted.status === "rejected") throw admitted.reason;
    return admitted.value;
  }

  async #park(work: Work, decision: Decision): Promise<CallEvent> {
    const { call, tool, labels } = work;
    const { sessions, now } = this.#options;
    const expiresMs = now() + approvalMs(decision);
    const begun = { call, decision, price: priceOf(work), basis: this.#basis(work) };
    // Recorded before people are asked: what they answer must find its call after any crash.
    const recorded = await sessions.execute(
      streamOf(call.principal),
      { kind: "park", expiresMs, ...begun },
      this.#within(work),
    );
    if (recorded.kind === "refused") return recordRefusal(recorded.refusal, call);
    const steps = await sessions.peek(streamOf(call.principal), lastSteps);
    const question = { call, tool, decision, expiresMs, labels, steps, budgets: work.budgets };
    await asking("approvals", this.ask(question, askOptions(work.io)));
    return { kind: "parked" };
  }

  get mask(): Mask {
    return this.#options.mask;
  }

  /** Puts the question to people. Idempotent: whoever finds a parked call may ask again. */
  async ask(question: Question, options: { deadlineMs: number }): Promise<void> {
    const { approvals, mask } = this.#options;
    await approvals.requestApproval({ approval: toApproval(question, mask) }, options);
  }

  async #admit(work: Work, decision: Decision): Promise<CallEvent> {
    await asking("runner", this.#options.runners.current());
    await this.#holds.extend(work, decision);
    return await this.#admission(work, decision);
  }

  async #admission(work: Work, decision: Decision): Promise<CallEvent> {
    const { call, tool, attempt } = work;
    const { sessions, now } = this.#options;
    const begun = { call, decision, price: priceOf(work), basis: this.#basis(work) };
    const deadlineMs = now() + wallMsOf(tool, decision) + RUN_SLACK_MS;
    const replaces = work.replaces === undefined ? {} : { replaces: work.replaces };
    const command: SessionCommand = { kind: "admit", attempt, deadlineMs, ...begun, ...replaces };
    const recorded = await sessions.execute(streamOf(call.principal), command, this.#within(work));
    return recorded.kind === "accepted" ? { kind: "admitted" } : recordRefusal(recorded.refusal, call);
  }

  #basis({ labels, loop }: Work): Basis {
    return { labels, loop: loop.level, limits: this.#options.loops };
  }

  async #run(work: Work, decision: Decision): Promise<CallEvent> {
    const { call, tool, live, io } = work;
    const signal = AbortSignal.any([io.signal, live.cancelled]);
    const trace = io.traceParent === undefined ? {} : { traceParent: io.traceParent };
    const run = {
      signal,
      ...trace,
      // Fields can be taken out of a whole answer only, not of pieces as they come.
      onOutput: (stderr: boolean, text: string) => {
        if (decision.obligations.redact === undefined) live.output(stderr, this.#options.mask(text));
      },
    };
    work.decision = decision;
    const { approvals, runners, nest } = this.#options;
    await giveNotice(approvals, work, decision);
    const once = (): Promise<RunOutcome> =>
      withCalls(
        maxCallsOf(tool),
        signal,
        (asked, ended) => nest(work, asked, ended),
        (onCall) => runners.run(call, tool, decision, { ...run, onCall }),
      );
    let outcome = await once();
    if (outcome.kind === "lost" && tool.manifest.idempotent && !signal.aborted) {
      live.enter("run", "The first run was lost; the tool is idempotent, so it is run once more.");
      outcome = await once();
    }
    switch (outcome.kind) {
      case "ran":
        return { kind: "ran", result: outcome.result };
      case "not_started":
        signal.throwIfAborted();
        throw serviceDown("runner", outcome.error);
      case "lost":
        if (signal.aborted) return { kind: "stopped", reason: RpcError.from(signal.reason).message };
        return {
          kind: "lost",
          message: `${outcome.error.message} The tool may have done its work; it is not run again.`,
        };
    }
  }

  #filter({ decision }: Work, result: RunResult): CallEvent {
    const shown = redactResult(result, decision?.obligations.redact ?? []);
    return { kind: "filtered", result: maskResult(shown, this.#options.mask) };
  }

  #within({ io }: Work): { signal: AbortSignal; deadlineMs?: number } {
    return { signal: io.signal, ...(io.deadlineMs === undefined ? {} : { deadlineMs: io.deadlineMs - 100 }) };
  }
}

function patienceOf({ patient }: Work, { kind }: CallCommand): number {
  if (patient !== true) return 0;
  return kind === "run" ? RUN_PATIENCE_MS : PATIENCE_MS;
}

type Doable = Exclude<CallCommand, { kind: "end" | "yield" | "none" }>;

function refused(refusal: Refusal): CallEvent {
  return { kind: "refused", refusal };
}

import { create, toBinary } from "@bufbuild/protobuf";
import { type NestedCall, PermitClaimsSchema, type RunnerService } from "../../proto/interlock/v1/runner_pb.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Client } from "../shared/rpc/types.ts";
import type { Signer } from "../shared/signing.ts";
import type { Tool } from "./catalog.ts";
import { egressOf } from "./measures.ts";
import type { Call, Decision, RunResult } from "./model.ts";
import type { Answer, Asked } from "./nested.ts";
import { fromRunResult } from "./run-wire.ts";
import { toLimits, toTimestamp } from "./wire.ts";

/** One boot of one runner: what a permit is for. */
export type RunnerBoot = { readonly runnerId: string; readonly bootId: string };

export type RunIo = {
  readonly signal: AbortSignal;
  readonly traceParent?: string;
  readonly onOutput: (stderr: boolean, text: string) => void;
  /** A call that the program makes. Never rejects. */
  readonly onCall: (asked: Asked) => Promise<Answer>;
};

/** What came of a run. `not_started` is certain: the runner refused it, or nobody took it. */
export type RunOutcome =
  | { readonly kind: "ran"; readonly result: RunResult }
  | { readonly kind: "not_started"; readonly error: RpcError }
  | { readonly kind: "lost"; readonly error: RpcError };

export type RunnersOptions = {
  readonly runner: Client<typeof RunnerService>;
  readonly signer: Signer;
  readonly newId: () => string;
  readonly now: () => number;
  readonly log: Log;
};

/** From a permit's signing to its use: time for the way to the runner, no more. */
const PERMIT_MS = 20_000;
const DESCRIBE_MS = 2_500;
/** For the way of an answer to a program. */
const ANSWER_MS = 5_000;
/** Beyond the wall clock of a run: its start, its end, and the way back. */
export const RUN_SLACK_MS = 15_000;

/** Where calls run: knows the runner of the moment, signs permits for its boot, and tells what came of a run. */
export class Runners {
  readonly #options: RunnersOptions;
  #boot: Promise<RunnerBoot> | undefined;

  constructor(options: RunnersOptions) {
    this.#options = options;
  }

  /** @throws RpcError when no runner answers. */
  current(): Promise<RunnerBoot> {
    this.#boot ??= this.#describe();
    return this.#boot;
  }

  /** Signs one permit and uses it. A runner that has restarted since is asked once more, under a permit of its own. */
  async run(call: Call, tool: Tool, decision: Decision, io: RunIo): Promise<RunOutcome> {
    for (let attempt = 1; ; attempt++) {
      const outcome = await this.#attempt(call, tool, decision, io);
      if (outcome.kind !== "not_started" || !isAboutTheRunner(outcome.error)) return outcome;
      this.#boot = undefined;
      if (attempt === 2) return outcome;
    }
  }

  async #attempt(call: Call, tool: Tool, decision: Decision, io: RunIo): Promise<RunOutcome> {
    const { runner, now } = this.#options;
    let sent = false;
    let answered = false;
    try {
      const boot = await this.current();
      const permit = await this.#sign(call, tool, decision, boot);
      io.signal.throwIfAborted();
      const request = { permit, manifestJson: tool.json, argumentsJson: call.argumentsJson };
      sent = true;
      const responses = runner.run(request, {
        signal: io.signal,
        deadlineMs: now() + wallMsOf(tool, decision) + RUN_SLACK_MS,
        instance: boot.runnerId,
        ...(io.traceParent === undefined ? {} : { traceParent: io.traceParent }),
      });
      let result: RunResult | undefined;
      for await (const { kind } of responses) {
        answered = true;
        if (kind.case === "output") io.onOutput(kind.value.stderr, kind.value.text);
        else if (kind.case === "call") void this.#answer(kind.value, boot, io);
        else if (kind.case === "result") result = fromRunResult(kind.value);
      }
      if (result !== undefined) return { kind: "ran", result };
      const message = "The runner ended the run without a result; whether the tool did its work is not known.";
      return { kind: "lost", error: new RpcError({ code: "UNKNOWN", reason: "RESULT_MISSING", message }) };
    } catch (thrown) {
      const error = RpcError.from(thrown);
      return { kind: answered || (sent && mayHaveStarted(error)) ? "lost" : "not_started", error };
    }
  }

  /** The ticket holds for this boot of this runner only. A program that has ended meanwhile needs no answer. */
  async #answer({ ticket, tool, argumentsJson }: NestedCall, boot: RunnerBoot, io: RunIo): Promise<void> {
    const { runner, now, log } = this.#options;
    const outcome = await io.onCall({ tool, argumentsJson });
    if (io.signal.aborted) return;
    try {
      await runner.answer({ ticket, outcome }, { deadlineMs: now() + ANSWER_MS, instance: boot.runnerId });
    } catch (thrown) {
      const error = RpcError.from(thrown);
      if (error.reason !== "TICKET_UNKNOWN") log.warn({ err: error, tool }, "nested.answer.lost");
    }
  }

  async #sign(call: Call, tool: Tool, decision: Decision, boot: RunnerBoot) {
    const { signer, newId, now } = this.#options;
    const { callId, principal, toolDigest, argumentsHash } = call;
    const claims = create(PermitClaimsSchema, {
      permitId: newId(),
      ref: { session: principal.session, callId },
      ...{ principal, tool: call.tool, toolDigest, argumentsHash },
      limits: toLimits(decision.obligations.limits),
      egress: egressOf(tool.manifest.egress, decision.obligations),
      depth: call.ancestors?.length ?? 0,
      ...boot,
      expireTime: toTimestamp(now() + PERMIT_MS),
    });
    return await signer.sign("permit", toBinary(PermitClaimsSchema, claims));
  }

  async #describe(): Promise<RunnerBoot> {
    try {
      const { runnerId, bootId } = await this.#options.runner.describe(
        {},
        { deadlineMs: this.#options.now() + DESCRIBE_MS },
      );
      return { runnerId, bootId };
    } catch (error) {
      this.#boot = undefined;
      throw error;
    }
  }
}

/** The run's wall clock: the tighter of manifest and obligation, ms. */
export function wallMsOf(tool: Tool, decision: Decision): number {
  const { wallMs } = decision.obligations.limits;
  const { wall_ms: widest } = tool.manifest.limits;
  return wallMs === 0 ? widest : Math.min(wallMs, widest);
}

/**
 * The runner refuses before it starts anything, with one of these; whatever else comes may come too late.
 * RESOURCE_EXHAUSTED may: a transport says it of a result that it does not carry.
 */
const REFUSALS: readonly string[] = [
  "INVALID_ARGUMENT",
  "NOT_FOUND",
  "PERMISSION_DENIED",
  "FAILED_PRECONDITION",
  "UNIMPLEMENTED",
  "UNAUTHENTICATED",
];
const NOBODY_TOOK_IT: readonly string[] = ["NO_RESPONDER", "RUNNER_STOPPING"];
const BUSY: readonly string[] = ["RUNNER_BUSY", "TENANT_BUSY"];

function mayHaveStarted(error: RpcError): boolean {
  return !REFUSALS.includes(error.code) && ![...NOBODY_TOOK_IT, ...BUSY].includes(error.reason);
}

/** Another boot, or another runner, may take it. */
function isAboutTheRunner(error: RpcError): boolean {
  return error.reason === "PERMIT_WRONG_RUNNER" || NOBODY_TOOK_IT.includes(error.reason);
}

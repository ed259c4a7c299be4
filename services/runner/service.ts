import type { KeyObject } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  AnswerRequest,
  RunnerService,
  RunRequest,
  RunResponseSchema,
} from "../../proto/interlock/v1/runner_pb.ts";
import { formatEgressRule } from "../shared/egress.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { HandlerContext, Handlers } from "../shared/rpc/types.ts";
import { verifierOf } from "../shared/signing.ts";
import type { Backend, RunResult, RunSpec } from "./backend.ts";
import { ManifestCache } from "./manifests.ts";
import { PermitChecker, permitRefusal } from "./permit.ts";
import { planRun } from "./plan.ts";
import { RunQueue } from "./run-queue.ts";
import { Tickets } from "./tickets.ts";
import { toCapability, toRunResult } from "./wire.ts";

export type RunnerOptions = {
  readonly runnerId: string;
  /** New at every start: permits of an earlier boot are refused. */
  readonly bootId: string;
  /** Owned from here on: disposed with the runner. */
  readonly backends: readonly Backend[];
  /** Of the brokers whose permits are good here. */
  readonly trustedKeys: readonly KeyObject[];
  readonly maxConcurrent: number;
  readonly now: () => number;
  readonly log: Log;
  /** How long runs may go on once the runner stops, before they are killed. */
  readonly drainMs?: number;
};

export type Runner = { readonly handlers: Handlers<typeof RunnerService> } & AsyncDisposable;

/** Runs what a permit allows, in a sandbox, and nothing else. */
export async function startRunner(options: RunnerOptions): Promise<Runner> {
  const { runnerId, bootId, backends } = options;
  const runs = new Runs(options);
  return {
    handlers: {
      run: (request, context) => runs.run(request, context),
      answer: async (request, context) => runs.answer(request, context),
      describe: async () => {
        const found = await Promise.all(backends.map((backend) => backend.describe()));
        return { runnerId, bootId, capabilities: found.flat().map(toCapability) };
      },
    },
    [Symbol.asyncDispose]: () => runs[Symbol.asyncDispose](),
  };
}

type Response = MessageInitShape<typeof RunResponseSchema>;

class Runs implements AsyncDisposable {
  readonly #options: RunnerOptions;
  readonly #permits: PermitChecker;
  readonly #manifests = new ManifestCache(1024);
  readonly #backends: ReadonlyMap<string, Backend>;
  readonly #tickets = new Tickets();
  readonly #kill = new AbortController();
  readonly #drained = Promise.withResolvers<void>();
  #running = 0;
  #stopped: Promise<void> | undefined;

  constructor(options: RunnerOptions) {
    const { runnerId, bootId, now, trustedKeys } = options;
    this.#options = options;
    this.#permits = new PermitChecker({ runnerId, bootId, now, verifier: verifierOf(trustedKeys) });
    this.#backends = new Map(options.backends.map((backend) => [backend.kind, backend]));
  }

  async *run(request: RunRequest, context: HandlerContext): AsyncGenerator<Response> {
    if (context.caller.kind !== "service") throw refuseCaller();
    this.#takeSlot();
    try {
      const spec = this.#admit(request);
      const backend = this.#backendFor(spec);
      backend.check(spec);
      context.signal.throwIfAborted();
      yield* this.#perform(backend, spec, context);
    } finally {
      this.#running--;
      if (this.#running === 0 && this.#stopped !== undefined) this.#drained.resolve();
    }
  }

  answer(request: AnswerRequest, { caller }: HandlerContext): Record<string, never> {
    if (caller.kind !== "service") throw refuseCaller();
    this.#tickets.answer(request);
    return {};
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#stopped ??= this.#dispose();
    return this.#stopped;
  }

  async #dispose(): Promise<void> {
    const timer = setTimeout(() => this.#kill.abort(), this.#options.drainMs ?? 5_000);
    if (this.#running > 0) await this.#drained.promise;
    clearTimeout(timer);
    await Promise.all(this.#options.backends.map((backend) => backend[Symbol.asyncDispose]()));
  }

  #takeSlot(): void {
    if (this.#stopped !== undefined) {
      const message = "The runner is stopping; send the call again, another one will take it.";
      throw new RpcError({ code: "UNAVAILABLE", reason: "RUNNER_STOPPING", message, retryAfterMs: 500 });
    }
    const { maxConcurrent } = this.#options;
    if (this.#running >= maxConcurrent) {
      const message = `The runner has its ${maxConcurrent} calls at once under way; send the call again shortly.`;
      throw new RpcError({ code: "RESOURCE_EXHAUSTED", reason: "RUNNER_BUSY", message, retryAfterMs: 100 });
    }
    this.#running++;
  }

  /** The permit is used up here, before anything has started. Its hash covers the arguments: they need no second look. */
  #admit(request: RunRequest): RunSpec {
    const call = this.#permits.claim(request);
    const manifest = this.#manifests.parse(call.toolDigest, request.manifestJson);
    if (manifest.name !== call.tool) throw permitRefusal("PERMIT_TOOL_MISMATCH");
    return planRun(call, manifest, request.argumentsJson);
  }

  #backendFor(spec: RunSpec): Backend {
    const { kind } = spec.sandbox;
    const backend = this.#backends.get(kind);
    if (backend === undefined) {
      const message = `This runner does not run tools of kind ${kind}; enable them in its configuration or use another.`;
      throw new RpcError({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE", message });
    }
    if (spec.egress.length > 0 && kind === "builtin") {
      const message = `${spec.tool} may reach ${spec.egress.map(formatEgressRule).join(", ")}, and a tool of kind ${kind} has no way out; use another kind, or remove egress from its manifest.`;
      throw new RpcError({ code: "FAILED_PRECONDITION", reason: "EGRESS_UNSUPPORTED", field: "egress", message });
    }
    return backend;
  }

  /** Output as it comes, then the result. However this ends, the sandbox has ended before it. */
  async *#perform(backend: Backend, spec: RunSpec, context: HandlerContext): AsyncGenerator<Response> {
    const queue = new RunQueue<Response>();
    const kill = new AbortController();
    const abort = (): void => kill.abort();
    const killers = [context.signal, this.#kill.signal];
    for (const signal of killers) signal.addEventListener("abort", abort);
    if (killers.some((signal) => signal.aborted)) abort();
    const run = backend
      .run(spec, {
        signal: kill.signal,
        onOutput: (stream, text) =>
          queue.push({ kind: { case: "output", value: { stderr: stream === "stderr", text } } }),
        onCall: (call, signal) =>
          this.#tickets.issue(signal, (ticket) => queue.push({ kind: { case: "call", value: { ticket, ...call } } })),
      })
      .finally(queue.close);
    let result: RunResult | undefined;
    try {
      yield* queue;
      result = await run;
      yield { kind: { case: "result", value: toRunResult(result) } };
    } finally {
      if (result === undefined) abort();
      for (const signal of killers) signal.removeEventListener("abort", abort);
      await run.catch(() => {}); // the caller has it from the await above, or has gone
      this.#logRun(spec, result);
    }
  }

  #logRun(spec: RunSpec, result: RunResult | undefined): void {
    const { callId, tenant, session, tool } = spec;
    const outcome = result === undefined ? { end: "fault" } : { end: result.end, ...result.usage };
    this.#options.log.info({ callId, tenant, session, tool, kind: spec.sandbox.kind, ...outcome }, "run");
  }
}

function refuseCaller(): RpcError {
  return new RpcError({
    code: "PERMISSION_DENIED",
    reason: "SERVICES_ONLY",
    message: "Only a broker may ask a runner to run; send the call to the broker.",
  });
}

import { canonicalJson, type Json } from "../../shared/json.ts";
import type { Log } from "../../shared/log.ts";
import { MAX_CODE_BYTES, type SandboxSpec } from "../../shared/manifest.ts";
import { MAX_DEPTH } from "../../shared/nesting.ts";
import { RpcError } from "../../shared/rpc/errors.ts";
import type { Backend, Capability, RunIo, RunResult, RunSpec } from "../backend.ts";
import { resolveSecrets } from "../call-secrets.ts";
import { resolver } from "../egress/addresses.ts";
import type { WayOutOptions } from "../egress/proxy.ts";
import type { SecretProviders } from "../secrets.ts";
import { type Confinement, MAX_MEMORY_BYTES, planConfinement } from "./confine.ts";
import { WorkerPool } from "./pool.ts";
import { IsolateRun, type Program } from "./run.ts";
import { WayOut } from "./way-out.ts";

/** V8 isolates in worker processes: never in the runner's own. */

export type IsolateOptions = {
  readonly workers: {
    /** Worker processes at most. */
    readonly workers: number;
    /** Of them kept ready for whoever comes. */
    readonly warm: number;
    /** Runs of one tenant at once, those that wait for a worker too. */
    readonly per_tenant: number;
    /** Refuse to run where a measure of confine.ts does not hold. */
    readonly require_confinement: boolean;
  };
  /** By default none are there, and names are looked up as the machine does. */
  readonly secrets?: SecretProviders;
  readonly egress?: WayOutOptions;
  readonly log: Log;
};

/** @throws Error when the configuration demands a confinement that this machine does not allow. */
export async function openIsolateBackend(options: IsolateOptions): Promise<Backend> {
  const { workers, log } = options;
  let confinement: Confinement;
  try {
    confinement = await planConfinement({ jit: false });
  } catch (error) {
    return unavailable(error instanceof Error ? error.message : String(error));
  }
  if (workers.require_confinement) demandAll(confinement);
  else if (confinement.missing.length > 0) log.warn({ missing: confinement.missing }, "isolates.confinement");
  return new IsolateBackend(options, confinement);
}

class IsolateBackend implements Backend {
  readonly kind = "isolate";
  readonly #options: IsolateOptions;
  readonly #usual: Place;
  /** For the programs that may have machine code made: few, so their first starts it. */
  #compiling: Promise<Place> | undefined;
  readonly #byTenant = new Map<string, number>();

  constructor(options: IsolateOptions, confinement: Confinement) {
    this.#options = options;
    this.#usual = { confinement, pool: new WorkerPool({ confinement, ...options.workers, log: options.log }) };
  }

  async describe(): Promise<readonly Capability[]> {
    const { enforced, missing } = this.#usual.confinement;
    return [{ kind: "isolate", isolationClass: "process", available: true, note: "", images: [], enforced, missing }];
  }

  check(spec: RunSpec): void {
    const sandbox = isolateOf(spec.sandbox);
    const { tool, limits, depth } = spec;
    if (limits.memoryBytes > MAX_MEMORY_BYTES) {
      const message = `${tool} may use ${limits.memoryBytes} bytes of memory; an isolate is held to at most ${MAX_MEMORY_BYTES}. Lower limits.memory_bytes in its manifest.`;
      throw unenforceable("LIMIT_UNENFORCEABLE", "limits.memory_bytes", message);
    }
    const needed = MAX_DEPTH + 2;
    if ((sandbox.calls ?? []).length > 0 && depth < MAX_DEPTH && this.#options.workers.workers < needed) {
      const message = `${tool} may call tools, for which runner.isolates.workers must be at least ${needed}: what waits for another must leave it a place.`;
      throw unenforceable("LIMIT_UNENFORCEABLE", "runner.isolates.workers", message);
    }
  }

  async run(spec: RunSpec, io: RunIo): Promise<RunResult> {
    const program = programOf(spec);
    const leave = this.#enter(spec.tenant);
    try {
      const { pool, confinement } = isolateOf(spec.sandbox).jit === true ? await this.#placeToCompile() : this.#usual;
      if (spec.egress.length === 0) return await new IsolateRun({ pool, confinement, spec, io, program }).run();
      const { secrets = {}, egress = { resolve: resolver([]), extraCa: [], now: Date.now } } = this.#options;
      const wayOut = new WayOut(spec, await resolveSecrets(secrets, spec.secrets, io.signal), egress);
      const { fetch } = wayOut;
      const run = new IsolateRun({ pool, confinement, spec, io, program, fetch }).run();
      return wayOut.addTo(await run.finally(() => wayOut[Symbol.asyncDispose]()));
    } finally {
      leave();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const places = [this.#usual, await this.#compiling?.catch(() => undefined)];
    await Promise.all(places.map((place) => place?.pool[Symbol.asyncDispose]()));
  }

  #enter(tenant: string): () => void {
    const count = this.#byTenant.get(tenant) ?? 0;
    const { per_tenant: most } = this.#options.workers;
    if (count >= most) {
      const message = `Tenant ${tenant} has its ${most} isolate runs at once under way; send the call again shortly.`;
      throw new RpcError({ code: "RESOURCE_EXHAUSTED", reason: "TENANT_BUSY", message, retryAfterMs: 100 });
    }
    this.#byTenant.set(tenant, count + 1);
    return () => {
      const left = (this.#byTenant.get(tenant) ?? 1) - 1;
      if (left > 0) this.#byTenant.set(tenant, left);
      else this.#byTenant.delete(tenant);
    };
  }

  #placeToCompile(): Promise<Place> {
    this.#compiling ??= this.#openToCompile().catch((error: unknown) => {
      this.#compiling = undefined;
      throw unenforceable("SANDBOX_UNAVAILABLE", "sandbox.jit", `A worker with jit does not start here: ${error}`);
    });
    return this.#compiling;
  }

  async #openToCompile(): Promise<Place> {
    const { workers, log } = this.#options;
    const confinement = await planConfinement({ jit: true });
    if (workers.require_confinement) demandAll(confinement);
    return { confinement, pool: new WorkerPool({ confinement, ...workers, warm: 0, log }) };
  }
}

type Place = { readonly confinement: Confinement; readonly pool: WorkerPool };

function demandAll({ missing }: Confinement): void {
  if (missing.length === 0) return;
  throw new Error(
    `runner.isolates.require_confinement is set, and these do not hold here: ${missing.join(", ")}. interlock doctor says more.`,
  );
}

function unavailable(why: string): Backend {
  const note = `V8 isolates cannot run here: ${why}. Run make up to install what is missing.`;
  const refuse = (): never => {
    throw new RpcError({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE", message: note });
  };
  const none = { images: [], enforced: [], missing: [] };
  return {
    kind: "isolate",
    describe: async () => [{ kind: "isolate", isolationClass: "process", available: false, note, ...none }],
    check: refuse,
    run: async () => refuse(),
    [Symbol.asyncDispose]: async () => {},
  };
}

type Isolate = Extract<SandboxSpec, { kind: "isolate" }>;

function isolateOf(sandbox: SandboxSpec): Isolate {
  if (sandbox.kind === "isolate") return sandbox;
  const message = `Isolates cannot run a tool of kind ${sandbox.kind}; choose a runner that can.`;
  throw new RpcError({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE", message });
}

/** The program, and the JSON it sees as `input`: all arguments, or, where one of them is the program, the one called input. */
function programOf(spec: RunSpec): Program {
  const { code, code_argument: name } = isolateOf(spec.sandbox);
  if (code !== undefined) return { code, input: spec.argumentsJson };
  const args = JSON.parse(spec.argumentsJson) as { readonly [key: string]: Json };
  const given = name === undefined || !Object.hasOwn(args, name) ? undefined : args[name];
  const problem =
    typeof given !== "string"
      ? `Send the program as text in the argument ${name}.`
      : Buffer.byteLength(given) > MAX_CODE_BYTES
        ? `Send a shorter program: it is ${Buffer.byteLength(given)} bytes, at most ${MAX_CODE_BYTES} are allowed.`
        : undefined;
  if (typeof given !== "string" || problem !== undefined) {
    const field = `arguments_json.${name}`;
    throw new RpcError({ code: "INVALID_ARGUMENT", reason: "ARGUMENTS_INVALID", field, message: problem ?? "" });
  }
  return { code: given, input: canonicalJson(args["input"] ?? null) };
}

function unenforceable(reason: string, field: string, message: string): RpcError {
  return new RpcError({ code: "FAILED_PRECONDITION", reason, field, message });
}

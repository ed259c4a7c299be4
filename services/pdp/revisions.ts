import { setTimeout } from "node:timers/promises";
import { Executor } from "../shared/executor.ts";
import type { Journal } from "../shared/journal/journal.ts";
import { sha256Hex } from "../shared/json.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Verifier } from "../shared/signing.ts";
import { type Bundle, unpackBundle } from "./bundle.ts";
import type { Model } from "./casbin.ts";
import {
  type PolicyCommand,
  type PolicyEvent,
  type PolicyRefusal,
  type PolicyState,
  policyDecider,
} from "./decider.ts";
import { buildPolicy, type Policy } from "./load.ts";
import { Differences } from "./replay.ts";
import { checkSignature } from "./signed.ts";

/** What a tenant is decided by now. */
export type Live = {
  /** 0 for the files that the service was started with. */
  readonly number: number;
  readonly policy: Policy;
  /** From the change's time in the record to the switch here; 0 for what was active already. */
  readonly switchedAfterMs: number;
};

export type Built = { readonly bundle: string; readonly policy: Policy };

export type ShadowRun = { readonly policy: Policy; readonly sinceMs: number; readonly seen: Differences };

export type RevisionsOptions = {
  readonly journal: Journal;
  readonly model: Model;
  /** The files that the service was started with: they decide for every tenant that has no revision yet. */
  readonly files: Policy;
  /** Whose signature a revision needs; undefined where none does. */
  readonly verifier: Verifier | undefined;
  readonly now: () => number;
  readonly log: Log;
};

const PREFIX = "policy.";
const PART_BYTES = 256 << 10;
const RETRY_MS = 300;

/**
 * The revisions as they are now, on every replica: the record is followed, and each that becomes active is built beside
 * the one that decides, then takes its place in one step. A revision that cannot be used denies everything of its tenant:
 * to go on by the old one would let through what the new one forbids.
 */
export class Revisions implements AsyncDisposable {
  readonly #options: RevisionsOptions;
  readonly #executor: Executor<PolicyState, PolicyCommand, PolicyEvent, PolicyRefusal>;
  readonly #live = new Map<string, Live>();
  readonly #shadows = new Map<string, ShadowRun>();
  readonly #files: Live;
  /** One switch after another, by tenant. */
  readonly #switching = new Map<string, Promise<void>>();
  /** By their packed files: what has just been examined, and need not be built twice. */
  readonly #built = new Map<string, Policy>();
  readonly #listeners = new Set<(tenant: string) => void>();
  readonly #stop = new AbortController();
  #following: Promise<void> = Promise.resolve();

  private constructor(options: RevisionsOptions) {
    this.#options = options;
    this.#files = { number: 0, policy: options.files, switchedAfterMs: 0 };
    const { journal, now } = options;
    // Its streams are short, and their files too large for a snapshot.
    this.#executor = new Executor({ journal, decider: policyDecider, now, snapshotEvery: Number.POSITIVE_INFINITY });
  }

  /** Resolves once every tenant is decided by its active revision. @throws RpcError when the journal does not answer. */
  static async open(options: RevisionsOptions): Promise<Revisions> {
    const revisions = new Revisions(options);
    for await (const stream of options.journal.streams(PREFIX))
      await revisions.#catchUp(stream.slice(PREFIX.length), 0);
    revisions.#following = revisions.#follow();
    return revisions;
  }

  of(tenant: string): Live {
    return this.#live.get(tenant) ?? this.#files;
  }

  /** What decides for tenants that have no revision. */
  get files(): Policy {
    return this.#options.files;
  }

  shadowOf(tenant: string): ShadowRun | undefined {
    return this.#shadows.get(tenant);
  }

  /** What the record says, on every replica. `look` must not keep what it is shown. */
  read<T>(tenant: string, look: (state: PolicyState) => T): Promise<T> {
    return this.#executor.read(PREFIX + tenant, look);
  }

  /**
   * Changes the record, and resolves once this replica has switched. `built`: what the command makes active, where it has
   * been built and its signature checked already.
   */
  async execute(tenant: string, command: PolicyCommand, built?: Built): Promise<PolicyRefusal | undefined> {
    if (built !== undefined) this.#built.set(built.bundle, built.policy);
    try {
      return await this.#change(tenant, command);
    } finally {
      if (built !== undefined) this.#built.delete(built.bundle);
    }
  }

  async #change(tenant: string, command: PolicyCommand): Promise<PolicyRefusal | undefined> {
    const decided = await this.#executor.execute(PREFIX + tenant, command);
    if (decided.kind === "refused") return decided.refusal;
    const switched = decided.events.some(({ kind }) => kind === "activated" || kind === "shadowed");
    if (switched && "timeMs" in command) await this.#catchUp(tenant, command.timeMs);
    return undefined;
  }

  /** Puts packed files into the record. Returns the name under which they are found. */
  async store(tenant: string, packed: Uint8Array): Promise<string> {
    const bundle = sha256Hex(packed);
    const count = Math.ceil(packed.length / PART_BYTES);
    for (let index = 0; index < count; index++) {
      const part = packed.subarray(index * PART_BYTES, (index + 1) * PART_BYTES);
      await this.execute(tenant, { kind: "store", bundle, index, count, data: Buffer.from(part).toString("base64") });
    }
    return bundle;
  }

  /** The packed files of a revision, from the record. */
  async packed(tenant: string, bundle: string): Promise<Uint8Array> {
    const places = await this.read(tenant, (state) => [...(state.parts.get(bundle) ?? [])]);
    const parts: Buffer[] = [];
    for (const seq of places) parts.push(await this.#part(PREFIX + tenant, seq));
    const packed = Buffer.concat(parts);
    if (sha256Hex(packed) !== bundle)
      throw new Error(`journal: the files of ${PREFIX}${tenant} are not what they were; run interlock audit verify`);
    return packed;
  }

  /** Calls back whenever a tenant is decided by another revision. Returns what ends that. */
  listen(onSwitch: (tenant: string) => void): () => void {
    this.#listeners.add(onSwitch);
    return () => this.#listeners.delete(onSwitch);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#following;
    await this.#executor[Symbol.asyncDispose]();
  }

  async #part(stream: string, seq: number): Promise<Buffer> {
    for await (const { body } of this.#options.journal.read(stream, seq - 1)) {
      const event = policyDecider.eventFromJson(JSON.parse(Buffer.from(body).toString("utf8")));
      if (event.kind === "stored") return Buffer.from(event.data, "base64");
      break;
    }
    throw new Error(`journal: ${stream} has no files at ${seq}; run interlock audit verify`);
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    const { journal, log } = this.#options;
    let position = 0;
    while (!signal.aborted) {
      try {
        for await (const record of journal.watch(PREFIX, position, signal)) {
          await this.#catchUp(record.stream.slice(PREFIX.length), record.timeMs);
          position = record.position;
        }
      } catch (error) {
        if (!signal.aborted) log.warn({ err: error }, "policy.following_lost");
      }
      await setTimeout(RETRY_MS, undefined, { signal }).catch(() => {});
    }
  }

  /** Has this replica decide by what the record says is active. */
  #catchUp(tenant: string, changedMs: number): Promise<void> {
    const before = this.#switching.get(tenant) ?? Promise.resolve();
    const next = before.then(() => this.#switch(tenant, changedMs));
    this.#switching.set(
      tenant,
      next.catch(() => {}),
    ); // its own caller is told; the next one begins anew
    return next;
  }

  async #switch(tenant: string, changedMs: number): Promise<void> {
    const { now, log } = this.#options;
    const wanted = await this.read(tenant, ({ active, revisions, shadow }) => ({
      active,
      record: revisions[active - 1],
      shadow,
    }));
    if (wanted.active !== this.of(tenant).number) {
      const began = performance.now();
      const policy = wanted.record === undefined ? this.#options.files : await this.#use(tenant, wanted.record);
      const switchedAfterMs = changedMs === 0 ? 0 : Math.max(0, now() - changedMs);
      this.#live.set(tenant, { number: wanted.active, policy, switchedAfterMs });
      const buildMs = Math.round(performance.now() - began);
      log.info(
        { tenant, number: wanted.active, revision: policy.revision, switchedAfterMs, buildMs },
        "policy.switched",
      );
      for (const onSwitch of this.#listeners) onSwitch(tenant);
    }
    if (wanted.shadow?.revision === this.#shadows.get(tenant)?.policy.revision) return;
    if (wanted.shadow === undefined) this.#shadows.delete(tenant);
    else
      this.#shadows.set(tenant, {
        policy: await this.#use(tenant, wanted.shadow),
        sinceMs: now(),
        seen: new Differences(),
      });
  }

  async #use(
    tenant: string,
    { bundle, revision }: { readonly bundle: string; readonly revision: string },
  ): Promise<Policy> {
    const { model, verifier, log } = this.#options;
    const built = this.#built.get(bundle);
    if (built?.revision === revision) return built;
    try {
      const files = await unpackBundle(await this.packed(tenant, bundle));
      if (verifier !== undefined) {
        const checked = checkSignature(files, verifier);
        if (checked.kind === "refused") throw new Error(checked.message);
      }
      const policy = await buildPolicy(model, files, { tenant });
      if (policy.revision !== revision)
        throw new Error(`It is built as ${policy.revision} here: this replica reads another model.conf.`);
      return policy;
    } catch (error) {
      if (error instanceof RpcError) throw error; // the journal did not answer: it is tried again
      log.error({ tenant, revision, err: error }, "policy.unusable");
      return await unusable(model, revision, tenant);
    }
  }
}

/** Denies everything, and says so. */
async function unusable(model: Model, revision: string, tenant: string): Promise<Policy> {
  const nothing: Bundle = new Map();
  const reasons = [
    `The active policy revision of tenant ${tenant} cannot be used by this replica, so every call is denied; the operator's log has its cause.`,
  ];
  const policy = await buildPolicy(model, nothing);
  return { ...policy, revision, decide: () => ({ outcome: "deny", reasons, matchedRules: [], obligations: {} }) };
}

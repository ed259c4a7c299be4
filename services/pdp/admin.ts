import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type PdpService,
  type StandingSchema,
  StandingState,
  type WatchRevisionsResponseSchema,
} from "../../proto/interlock/v1/pdp_pb.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller, HandlerContext, Handlers } from "../shared/rpc/types.ts";
import type { Verifier } from "../shared/signing.ts";
import {
  parseBundle,
  parseChangeId,
  parseReason,
  refusalError,
  toCandidate,
  toReplayed,
  toRevision,
  toStanding,
} from "./admin-wire.ts";
import { packBundle } from "./bundle.ts";
import type { Model } from "./casbin.ts";
import { type Examined, examine, obstacleOf, ownPart } from "./change.ts";
import type { PolicyAction } from "./check.ts";
import type { Decision } from "./decide.ts";
import type { PolicyCommand } from "./decider.ts";
import { NOTHING_SPENT, type ToolFacts } from "./facts.ts";
import type { Recent } from "./replay.ts";
import type { Built, Revisions } from "./revisions.ts";
import { policyTool } from "./table-tests.ts";

/**
 * How the policy is changed. A change is itself a call of a tool (`policy.push`, ...) by a person, decided by the policy
 * that is active: rules say who may, `require_approval` is the second pair of eyes, nothing matches = nobody may.
 */

export type Person = Extract<Caller, { kind: "person" }>;

export type AdminOptions = {
  readonly revisions: Revisions;
  readonly recent: Recent;
  readonly model: Model;
  readonly tools: readonly ToolFacts[];
  readonly verifier: Verifier | undefined;
  readonly now: () => number;
};

type AdminMethod =
  | "pushPolicy"
  | "rollbackPolicy"
  | "approveChange"
  | "rejectChange"
  | "listRevisions"
  | "getPolicy"
  | "setShadow"
  | "getShadow"
  | "watchRevisions";

const KEPT_DIFF_LINES = 200;

export class Admin {
  readonly #options: AdminOptions;

  constructor(options: AdminOptions) {
    this.#options = options;
  }

  handlers(): Pick<Handlers<typeof PdpService>, AdminMethod> {
    return {
      pushPolicy: (request, { caller }) => this.#push(request, requirePerson(caller)),
      rollbackPolicy: async (request, { caller }) => ({
        standing: await this.#rollback(request, requirePerson(caller)),
      }),
      approveChange: async ({ changeId }, { caller }) => ({
        standing: await this.#approve(changeId, requirePerson(caller)),
      }),
      rejectChange: async (request, { caller }) => ({ standing: await this.#reject(request, requirePerson(caller)) }),
      listRevisions: (_, { caller }) => this.#list(requirePerson(caller)),
      getPolicy: ({ number }, { caller }) => this.#get(number, requirePerson(caller)),
      setShadow: (request, { caller }) => this.#setShadow(request, requirePerson(caller)),
      getShadow: async (_, { caller }) => {
        const shadow = this.#options.revisions.shadowOf(requirePerson(caller).tenant);
        if (shadow === undefined) return { revision: "" };
        return { revision: shadow.policy.revision, replayed: toReplayed(shadow.seen.report(shadow.sinceMs)) };
      },
      watchRevisions: (_, context) => this.#watch(requirePerson(context.caller).tenant, context),
    };
  }

  /** Everything that can be known of a candidate. @throws RpcError when the bundle is none. */
  async examine(packed: Uint8Array, tenant: string): Promise<Examined> {
    const { revisions, recent, model, tools, verifier } = this.#options;
    const bundle = await parseBundle(packed);
    const base = revisions.of(tenant).policy;
    return await examine(bundle, { ...{ model, tenant, tools, verifier, base }, recent: recent.ofTenant(tenant) });
  }

  async #push(
    request: { bundle: Uint8Array; reason: string; dryRun: boolean; baseRevision: string; changeId: string },
    person: Person,
  ) {
    const { tenant } = person;
    const { revisions } = this.#options;
    const reason = parseReason(request.reason);
    const before = revisions.of(tenant);
    this.#decide(person, "policy.push", undefined); // who may not in any case is not worth the work
    const examined = await this.examine(request.bundle, tenant);
    const { policy, diff, keyId } = examined;
    const counts = { rules: policy?.countRules() ?? 0, lines_added: diff.added, lines_removed: diff.removed };
    const decision = this.#decide(person, "policy.push", { reason, ...counts });
    const candidate = toCandidate(examined, before.policy);
    if (request.dryRun) {
      const standing = { state: StandingState.DRY_RUN, revision: candidate.revision ?? "", ...neededBy(decision) };
      return { candidate, standing };
    }
    const id = parseChangeId(request.changeId);
    if (request.baseRevision !== "" && request.baseRevision !== before.policy.revision)
      throw refusalError({ kind: "outdated" });
    const obstacle = obstacleOf(examined);
    if (obstacle !== undefined || policy === undefined) throw unsound(obstacle);
    const bundle = await revisions.store(tenant, request.bundle);
    const kept = {
      rules: counts.rules,
      added: diff.added,
      removed: diff.removed,
      diff: diff.lines.slice(0, KEPT_DIFF_LINES),
      keyId,
    };
    const record = { revision: policy.revision, bundle, ...kept };
    const asked = { id, base: before.number, author: person.name, reason, ...neededBy(decision) };
    const command: PolicyCommand = { kind: "push", record, ...asked, timeMs: this.#options.now() };
    return { candidate, standing: await this.#change(tenant, id, command, { bundle, policy }) };
  }

  async #rollback(request: { number?: number | undefined; reason: string; changeId: string }, person: Person) {
    const { tenant, name: author } = person;
    const reason = parseReason(request.reason);
    const id = parseChangeId(request.changeId);
    const base = this.#options.revisions.of(tenant).number;
    const number = request.number ?? (await this.#before(tenant, base));
    const decision = this.#decide(person, "policy.rollback", { reason, number });
    const asked = { id, base, author, reason, ...neededBy(decision), timeMs: this.#options.now() };
    return await this.#change(tenant, id, { kind: "rollback", number, ...asked });
  }

  /** The revision that was active before the one that is. */
  async #before(tenant: string, active: number): Promise<number> {
    return await this.#options.revisions.read(tenant, ({ changes }) => {
      const last = [...changes.values()]
        .filter((change) => change.standing === "active" && change.number === active)
        .at(-1);
      if (last === undefined) throw refusalError({ kind: "unknown_revision" });
      return last.base;
    });
  }

  async #approve(changeId: string, person: Person) {
    const { tenant, name: by, groups } = person;
    const id = parseChangeId(changeId);
    const change = await this.#options.revisions.read(tenant, ({ changes }) => changes.get(id));
    if (change === undefined) throw refusalError({ kind: "unknown_change" });
    this.#mayApprove(person, change.author, change.kind);
    if (change.approverGroup !== "" && !groups.includes(change.approverGroup)) {
      throw new RpcError({
        code: "PERMISSION_DENIED",
        reason: "NOT_IN_GROUP",
        message: `Only people of the group ${change.approverGroup} approve this change; ask one of them.`,
      });
    }
    return await this.#change(tenant, id, { kind: "approve", id, by, timeMs: this.#options.now() });
  }

  async #reject(request: { changeId: string; reason: string }, person: Person) {
    const { tenant, name: by } = person;
    const id = parseChangeId(request.changeId);
    const reason = parseReason(request.reason);
    const change = await this.#options.revisions.read(tenant, ({ changes }) => changes.get(id));
    if (change === undefined) throw refusalError({ kind: "unknown_change" });
    if (change.author !== by) this.#mayApprove(person, change.author, change.kind);
    return await this.#change(tenant, id, { kind: "reject", id, by, reason, timeMs: this.#options.now() });
  }

  #mayApprove(person: Person, author: string, kind: string): void {
    const decision = this.#decide(person, "policy.approve", { author, kind });
    if (decision.outcome === "allow") return;
    throw denied(
      "An approval cannot itself need approval; an operator must make policy.approve an allow or a deny.",
      decision,
    );
  }

  async #change(
    tenant: string,
    id: string,
    command: PolicyCommand,
    built?: Built,
  ): Promise<MessageInitShape<typeof StandingSchema>> {
    const { revisions } = this.#options;
    const refusal = await revisions.execute(tenant, command, built);
    if (refusal !== undefined) throw refusalError(refusal);
    return await revisions.read(tenant, (state) => {
      const change = state.changes.get(id);
      if (change === undefined) throw new Error(`change ${id} was accepted and is not there`);
      return toStanding(change, state, revisions.files.revision);
    });
  }

  async #list({ tenant }: Person) {
    const { revisions } = this.#options;
    const files = {
      number: 0,
      revision: revisions.files.revision,
      reason: "the files that the service was started with",
    };
    return await revisions.read(tenant, (state) => ({
      revisions: [
        { ...files, active: state.active === 0 },
        ...state.revisions.map((record) => toRevision(record, state)),
      ],
      waiting: [...state.changes.values()]
        .filter(({ standing }) => standing === "waiting")
        .map((change) => ({
          standing: toStanding(change, state, revisions.files.revision),
          ...{ author: change.author, reason: change.reason, rollback: change.kind === "rollback" },
          time: { seconds: BigInt(Math.floor(change.timeMs / 1000)), nanos: (change.timeMs % 1000) * 1_000_000 },
        })),
    }));
  }

  async #get(number: number | undefined, { tenant }: Person) {
    const { revisions } = this.#options;
    const wanted = number ?? revisions.of(tenant).number;
    if (wanted === 0) {
      const revision = { number: 0, revision: revisions.files.revision, active: revisions.of(tenant).number === 0 };
      return { revision, bundle: await packBundle(await ownPart(revisions.files.bundle, tenant)) };
    }
    const found = await revisions.read(tenant, (state) => {
      const record = state.revisions[wanted - 1];
      return record === undefined ? undefined : { bundle: record.bundle, revision: toRevision(record, state) };
    });
    if (found === undefined) throw refusalError({ kind: "unknown_revision" });
    return { revision: found.revision, bundle: await revisions.packed(tenant, found.bundle) };
  }

  async #setShadow(request: { bundle: Uint8Array; reason: string }, person: Person) {
    const { tenant, name: author } = person;
    const { revisions, now } = this.#options;
    const reason = parseReason(request.reason);
    const decision = this.#decide(person, "policy.shadow", { reason, on: request.bundle.length > 0 });
    if (decision.outcome !== "allow")
      throw denied(
        "A shadow decides nothing and cannot need approval; make policy.shadow an allow or a deny.",
        decision,
      );
    const shadow = request.bundle.length === 0 ? undefined : await this.#shadowOf(request.bundle, person);
    const refusal = await revisions.execute(tenant, { kind: "shadow", shadow, author, reason, timeMs: now() });
    if (refusal !== undefined) throw refusalError(refusal);
    return { revision: shadow?.revision ?? "" };
  }

  async #shadowOf(packed: Uint8Array, { tenant, name: author }: Person) {
    const examined = await this.examine(packed, tenant);
    const obstacle = obstacleOf(examined);
    if (obstacle !== undefined || examined.policy === undefined) throw unsound(obstacle);
    const bundle = await this.#options.revisions.store(tenant, packed);
    return { bundle, revision: examined.policy.revision, author, timeMs: this.#options.now() };
  }

  async *#watch(
    tenant: string,
    { signal }: HandlerContext,
  ): AsyncGenerator<MessageInitShape<typeof WatchRevisionsResponseSchema>> {
    const { revisions } = this.#options;
    let wake: () => void = () => {};
    const unlisten = revisions.listen((switched) => {
      if (switched === tenant) wake();
    });
    const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    try {
      while (!signal.aborted) {
        const changed = new Promise<void>((resolve) => (wake = resolve));
        const { number, policy, switchedAfterMs } = revisions.of(tenant);
        yield { number, revision: policy.revision, switchedAfterMs };
        await Promise.race([changed, aborted]);
      }
    } finally {
      unlisten();
    }
  }

  /** What the active policy says of this change. @throws RpcError PERMISSION_DENIED with its reasons. */
  #decide(
    { tenant, name }: Person,
    action: PolicyAction,
    args: Readonly<Record<string, string | number | boolean>> | undefined,
  ): Decision {
    const { revisions, now } = this.#options;
    const tool = policyTool(action);
    if (tool === undefined) throw new Error(`${action} is no change of the policy`);
    const decision = revisions.of(tenant).policy.decide({
      ...{ tenant, agent: "", user: name, session: "", tool, args, timeMs: now() },
      ...{ labels: [], loop: "clear", chain: [], spent: NOTHING_SPENT },
    });
    if (decision.outcome !== "deny") return decision;
    throw denied(decision.reasons.join(" "), decision);
  }
}

/** What a change needs before it is live. */
function neededBy({ outcome, obligations }: Decision): { approvalsNeeded: number; approverGroup: string } {
  if (outcome !== "require_approval") return { approvalsNeeded: 0, approverGroup: "" };
  return { approvalsNeeded: obligations.quorum ?? 1, approverGroup: obligations.approverGroup ?? "" };
}

function denied(message: string, { matchedRules }: Decision): RpcError {
  const metadata = { rules: matchedRules.join(", ") };
  return new RpcError({ code: "PERMISSION_DENIED", reason: "POLICY_DENIED", message, metadata });
}

function unsound(obstacle: ReturnType<typeof obstacleOf>): RpcError {
  if (obstacle === undefined) throw new Error("a policy cannot be used and nothing says why");
  const { reason, problem, count } = obstacle;
  const place = problem.line === undefined ? problem.file : `${problem.file}:${problem.line}`;
  const field = problem.field === "" ? "" : `${problem.field}: `;
  const more = count > 1 ? ` (and ${count - 1} more; interlock policy push --dry-run lists them)` : "";
  return new RpcError({
    code: "FAILED_PRECONDITION",
    reason,
    message: `${place}: ${field}${problem.message}${more}`,
    metadata: { file: place },
  });
}

/** Changes are people's. The edge checks it too. @throws RpcError PERMISSION_DENIED */
export function requirePerson(caller: Caller): Person {
  if (caller.kind === "person" && caller.roles.includes("operator")) return caller;
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "OPERATOR_ONLY",
    message: "Only operators look after the policy; use an operator's key.",
  });
}

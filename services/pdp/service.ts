import type { KeyObject } from "node:crypto";
import type { MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { PdpService } from "../../proto/interlock/v1/pdp_pb.ts";
import type { DecisionSchema, FactsSchema } from "../../proto/interlock/v1/types_pb.ts";
import type { Journal } from "../shared/journal/journal.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller, Handlers } from "../shared/rpc/types.ts";
import { verifierOf } from "../shared/signing.ts";
import { FileProblems } from "../shared/yaml-file.ts";
import { Admin } from "./admin.ts";
import { toPossibility, toReplayed } from "./admin-wire.ts";
import { SIGNATURE_FILE } from "./bundle.ts";
import type { Examined } from "./change.ts";
import { explain } from "./explain.ts";
import type { Facts, ToolFacts } from "./facts.ts";
import { loadModel, loadPolicy, type Policy } from "./load.ts";
import { possibility, subjectsOf } from "./possible.ts";
import { Recent, replay } from "./replay.ts";
import { Revisions } from "./revisions.ts";
import { checkSignature } from "./signed.ts";
import { policyTool } from "./table-tests.ts";
import { parseFacts, toDecision, toKind } from "./wire.ts";

/** The policy decision point. It answers; it does not act. All that it writes down is its own revisions. */

export type PdpOptions = {
  /** Directory of model.conf, the rules in *.csv and their tests. */
  readonly policyDir: string;
  /** The tools that there are, for checking rules against and for who-can and what-can. */
  readonly tools: readonly ToolFacts[];
  readonly journal: Journal;
  /** Whose signatures a policy needs, files and revisions alike; empty: none is needed. */
  readonly trustedKeys: readonly KeyObject[];
  readonly now: () => number;
  readonly log: Log;
};

export type Pdp = {
  readonly handlers: Handlers<typeof PdpService>;
  /** The same decisions for callers in this process that have facts of their own. */
  readonly decide: (facts: Facts) => ReturnType<Policy["decide"]> & { readonly revision: string };
  readonly policyOf: (tenant: string) => Policy;
} & AsyncDisposable;

const MAX_BATCH = 1000;
/** Calls with longer arguments are decided and not remembered: memory is bounded by what is. */
const MAX_REMEMBERED_LENGTH = 8 << 10;

/** @throws FileProblems when the policy is not sound: nothing is served by half a policy. */
export async function startPdp(options: PdpOptions): Promise<Pdp> {
  const { policyDir, trustedKeys, tools, journal, now, log } = options;
  const [model, files] = await Promise.all([loadModel(policyDir), loadPolicy(policyDir)]);
  const verifier = trustedKeys.length === 0 ? undefined : verifierOf(trustedKeys);
  if (verifier !== undefined) requireSigned(policyDir, files, verifier);
  log.info({ revision: files.revision, rules: files.countRules() }, "policy.loaded");
  const revisions = await Revisions.open({ journal, model, files, verifier, now, log });
  const recent = new Recent(now());
  const admin = new Admin({ revisions, recent, model, tools, verifier, now });
  const parts: Parts = { revisions, recent, admin, tools, now };
  return {
    handlers: { ...decidingHandlers(parts), ...explainingHandlers(parts), ...admin.handlers() },
    decide: (facts) => decideLive(parts, facts),
    policyOf: (tenant) => revisions.of(tenant).policy,
    [Symbol.asyncDispose]: () => revisions[Symbol.asyncDispose](),
  };
}

type Parts = {
  readonly revisions: Revisions;
  readonly recent: Recent;
  readonly admin: Admin;
  readonly tools: readonly ToolFacts[];
  readonly now: () => number;
};

function requireSigned(dir: string, files: Policy, verifier: ReturnType<typeof verifierOf>): void {
  const checked = checkSignature(files.bundle, verifier);
  if (checked.kind === "signed") return;
  throw new FileProblems([{ file: `${dir}/${SIGNATURE_FILE}`, line: undefined, field: "", message: checked.message }]);
}

/** One decision by what is active now, and, unseen by whoever asks, by the shadow. */
function decideLive({ revisions }: Parts, facts: Facts): ReturnType<Pdp["decide"]> {
  const { policy } = revisions.of(facts.tenant);
  const decision = policy.decide(facts);
  const shadow = revisions.shadowOf(facts.tenant);
  if (shadow !== undefined) setImmediate(() => shadow.seen.add(facts, decision, shadow.policy.decide(facts)));
  return { ...decision, revision: policy.revision };
}

type Deciding = "decide" | "decideBatch" | "decidePossible" | "getRevision";

function decidingHandlers(parts: Parts): Pick<Handlers<typeof PdpService>, Deciding> {
  const { revisions, recent } = parts;
  const decide = (
    field: string,
    message: MessageShape<typeof FactsSchema> | undefined,
    caller: Caller,
  ): MessageInitShape<typeof DecisionSchema> => {
    const facts = factsFrom(field, message, caller);
    const { revision, ...decision } = decideLive(parts, facts);
    if (caller.kind === "service" && (message?.argumentsJson.length ?? 0) <= MAX_REMEMBERED_LENGTH) recent.note(facts);
    return toDecision(decision, revision);
  };
  return {
    decide: async ({ facts }, { caller }) => ({ decision: decide("facts", facts, authorised(caller)) }),
    decideBatch: async ({ facts }, { caller }) => {
      authorised(caller);
      refuseLargeBatch(facts.length);
      return { decisions: facts.map((one, i) => decide(`facts[${i}]`, one, caller)) };
    },
    decidePossible: async ({ facts }, { caller }) => {
      authorised(caller);
      refuseLargeBatch(facts.length);
      return {
        decisions: facts.map((one, i) => {
          const known = factsFrom(`facts[${i}]`, { ...one, argumentsJson: "{}" }, caller);
          const { policy } = revisions.of(known.tenant);
          return toDecision(policy.decide({ ...known, args: undefined }), policy.revision);
        }),
      };
    },
    getRevision: async (_request, { caller }) => {
      const tenant = authorised(caller).kind === "person" ? tenantOf("", "", caller) : undefined;
      const { policy } = revisions.of(tenant ?? "");
      return { revision: policy.revision, rules: policy.countRules(tenant) };
    },
  };
}

type Explaining = "explain" | "simulate" | "replay" | "whoCan" | "whatCan";

function explainingHandlers({ revisions, admin, tools, now }: Parts): Pick<Handlers<typeof PdpService>, Explaining> {
  return {
    explain: async ({ facts: message }, { caller }) => {
      const facts = factsFrom("facts", message, authorised(caller));
      const { policy } = revisions.of(facts.tenant);
      const { decision, sentences, nearMisses } = explain(policy, facts);
      return {
        decision: toDecision(decision, policy.revision),
        sentences: [...sentences],
        nearMisses: nearMisses.map(({ rule, outcome, missing }) => ({
          rule,
          outcome: toKind(outcome),
          missing: [...missing],
        })),
      };
    },
    simulate: async ({ facts: message, bundle }, { caller }) => {
      const facts = factsFrom("facts", message, authorised(caller));
      const { policy: active } = revisions.of(facts.tenant);
      const answer = { active: toDecision(active.decide(facts), active.revision) };
      if (bundle.length === 0) return answer;
      const candidate = usable(await admin.examine(bundle, facts.tenant));
      return { ...answer, candidate: toDecision(candidate.decide(facts), candidate.revision) };
    },
    replay: async ({ bundle, facts: messages }, { caller }) => {
      const tenant = tenantOf("facts", "", authorised(caller));
      const examined = await admin.examine(bundle, tenant);
      const candidate = usable(examined);
      if (messages.length === 0)
        return { replayed: toReplayed(examined.replayed ?? (await replay([], candidate, candidate, undefined))) };
      refuseLargeBatch(messages.length);
      const facts = messages.map((one, i) => factsFrom(`facts[${i}]`, one, caller));
      return { replayed: toReplayed(await replay(facts, revisions.of(tenant).policy, candidate, undefined)) };
    },
    whoCan: async ({ tool }, { caller }) => {
      const tenant = tenantOf("tenant", "", authorised(caller));
      const { policy } = revisions.of(tenant);
      const found = toolOf(tools, tool);
      return {
        who: subjectsOf(policy, tenant).map((subject) =>
          toPossibility(possibility(policy, tenant, subject, found, now())),
        ),
      };
    },
    whatCan: async ({ subject }, { caller }) => {
      const tenant = tenantOf("tenant", "", authorised(caller));
      if (!/^(agent|user):\S{1,128}$/.test(subject)) {
        throw new RpcError({
          code: "INVALID_ARGUMENT",
          reason: "FIELD_INVALID",
          field: "subject",
          message: "Change subject: write agent:<name> or user:<name>.",
        });
      }
      const { policy } = revisions.of(tenant);
      return { what: tools.map((tool) => toPossibility(possibility(policy, tenant, subject, tool, now()))) };
    },
  };
}

/** @throws RpcError with the first thing that is wrong with a candidate. */
function usable({ policy, findings }: Examined): Policy {
  if (policy !== undefined) return policy;
  const problem = findings.find(({ severity }) => severity === "error");
  const place = problem === undefined ? "" : `${problem.file}${problem.line === undefined ? "" : `:${problem.line}`}: `;
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "POLICY_UNSOUND",
    field: "bundle",
    message: `${place}${problem?.message ?? "It cannot be used."}`,
  });
}

/** @throws RpcError NOT_FOUND */
function toolOf(tools: readonly ToolFacts[], name: string): ToolFacts {
  const found = tools.find((tool) => tool.name === name) ?? policyTool(name);
  if (found !== undefined) return found;
  throw new RpcError({
    code: "NOT_FOUND",
    reason: "TOOL_UNKNOWN",
    field: "tool",
    message: `There is no tool ${name.slice(0, 100)}; interlock tools lists them.`,
  });
}

function factsFrom(field: string, message: MessageShape<typeof FactsSchema> | undefined, caller: Caller): Facts {
  return parseFacts(field, message, tenantOf(field, message?.principal?.tenant ?? "", caller));
}

function refuseLargeBatch(count: number): void {
  if (count <= MAX_BATCH) return;
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "BATCH_TOO_LARGE",
    field: "facts",
    message: `Send at most ${MAX_BATCH} facts at a time; here are ${count}.`,
  });
}

/** Our own services and operators. The edge checks it too; whoever reaches a handler another way meets it here. */
function authorised(caller: Caller): Caller {
  switch (caller.kind) {
    case "service":
      return caller;
    case "person":
      if (caller.roles.includes("operator")) return caller;
      break;
    case "agent":
      break;
  }
  throw new RpcError({
    code: "PERMISSION_DENIED",
    reason: "OPERATOR_ONLY",
    message: "Only operators may ask the policy directly; use an operator's key.",
  });
}

/** An operator asks about their own tenant; of another they learn nothing, not even that it exists. */
function tenantOf(field: string, asked: string, caller: Caller): string {
  if (caller.kind === "service" || asked === caller.tenant) return asked;
  if (asked === "") return caller.tenant;
  throw new RpcError({
    code: "NOT_FOUND",
    reason: "TENANT_NOT_FOUND",
    field: `${field}.principal.tenant`,
    message: "There is no such tenant for you; leave it empty for your own.",
  });
}

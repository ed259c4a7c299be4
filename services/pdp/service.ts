import type { PdpService } from "../../proto/interlock/v1/pdp_pb.ts";
import type { Log } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Caller, Handlers } from "../shared/rpc/types.ts";
import { loadPolicy } from "./load.ts";
import { parseFacts, toDecision } from "./wire.ts";

/** The policy decision point. It answers; it does not act, and it keeps nothing but the policy it was started with. */

export type PdpOptions = {
  /** Directory of model.conf and the rules in *.csv. */
  readonly policyDir: string;
  readonly log: Log;
};

export type Pdp = { readonly handlers: Handlers<typeof PdpService> } & AsyncDisposable;

const MAX_BATCH = 1000;

/** @throws FileProblems when the policy is not sound: nothing is served by half a policy. */
export async function startPdp(options: PdpOptions): Promise<Pdp> {
  const policy = await loadPolicy(options.policyDir);
  options.log.info({ revision: policy.revision, rules: policy.countRules() }, "policy.loaded");

  const decide = (field: string, facts: Parameters<typeof parseFacts>[1], caller: Caller) => {
    const tenant = tenantOf(field, facts?.principal?.tenant ?? "", caller);
    return toDecision(policy.decide(parseFacts(field, facts, tenant)), policy.revision);
  };

  return {
    handlers: {
      decide: async ({ facts }, { caller }) => {
        authorise(caller);
        return { decision: decide("facts", facts, caller) };
      },
      decideBatch: async ({ facts }, { caller }) => {
        authorise(caller);
        refuseLargeBatch(facts.length);
        return { decisions: facts.map((one, i) => decide(`facts[${i}]`, one, caller)) };
      },
      decidePossible: async ({ facts }, { caller }) => {
        authorise(caller);
        refuseLargeBatch(facts.length);
        return {
          decisions: facts.map((one, i) => {
            const field = `facts[${i}]`;
            const tenant = tenantOf(field, one.principal?.tenant ?? "", caller);
            const known = parseFacts(field, { ...one, argumentsJson: "{}" }, tenant);
            return toDecision(policy.decide({ ...known, args: undefined }), policy.revision);
          }),
        };
      },
      getRevision: async (_request, { caller }) => {
        authorise(caller);
        const rules = policy.countRules(caller.kind === "person" ? caller.tenant : undefined);
        return { revision: policy.revision, rules };
      },
    },
    [Symbol.asyncDispose]: async () => {},
  };
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
function authorise(caller: Caller): void {
  switch (caller.kind) {
    case "service":
      return;
    case "person":
      if (caller.roles.includes("operator")) return;
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

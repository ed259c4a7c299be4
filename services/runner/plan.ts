import { type EgressRule, intersectEgress, parseEgressRules } from "../shared/egress.ts";
import type { Manifest } from "../shared/manifest.ts";
import type { Limits, RunSpec } from "./backend.ts";
import { type PermittedCall, permitRefusal } from "./permit.ts";

/**
 * What runs: the permit's call within the manifest's bounds. Clamps, never widens.
 * @throws RpcError PERMISSION_DENIED for a permit whose egress cannot be read: nothing runs with half of it.
 */
export function planRun(call: PermittedCall, manifest: Manifest, argumentsJson: string): RunSpec {
  return {
    callId: call.callId,
    tenant: call.tenant,
    agent: call.agent,
    session: call.session,
    user: call.user,
    tool: manifest.name,
    impact: manifest.impact,
    sandbox: manifest.sandbox,
    argumentsJson,
    limits: planLimits(call.limits, manifest.limits),
    egress: intersectEgress(permittedEgress(call.egress), parseEgressRules(manifest.egress)),
    depth: call.depth,
    secrets: manifest.secrets,
  };
}

function permittedEgress(rules: readonly string[]): EgressRule[] {
  try {
    return parseEgressRules(rules);
  } catch {
    throw permitRefusal("PERMIT_MALFORMED");
  }
}

function planLimits(permit: PermittedCall["limits"], manifest: Manifest["limits"]): Limits {
  return {
    wallMs: tighter(permit.wallMs, manifest.wall_ms),
    cpuMs: tighter(permit.cpuMs, manifest.cpu_ms),
    memoryBytes: tighter(permit.memoryBytes, manifest.memory_bytes),
    outputBytes: tighter(permit.outputBytes, manifest.output_bytes),
    pids: tighter(permit.pids, manifest.pids),
    egressBytes: manifest.egress_bytes,
  };
}

/** A permit's zero leaves the bound to the manifest. */
function tighter(permit: number, manifest: number): number {
  return permit === 0 ? manifest : Math.min(permit, manifest);
}

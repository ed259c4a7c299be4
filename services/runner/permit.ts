import { fromBinary } from "@bufbuild/protobuf";
import { type PermitClaims, PermitClaimsSchema, type RunRequest } from "../../proto/interlock/v1/runner_pb.ts";
import { sha256Hex } from "../shared/json.ts";
import { NAME } from "../shared/names.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Verifier } from "../shared/signing.ts";

/**
 * The door to every sandbox. A permit is checked in this order, and the first thing that is wrong is the one reported:
 *
 *   1 PERMIT_MISSING              there is none
 *   2 PERMIT_FORGED               signed by a key this runner does not trust
 *   3 PERMIT_SIGNATURE_INVALID    a trusted key's name, but not its signature over these bytes: altered
 *   4 PERMIT_MALFORMED            its claims cannot be read in full
 *   5 PERMIT_WRONG_RUNNER         for another runner, or for an earlier boot of this one
 *   6 PERMIT_EXPIRED              its time is over
 *   7 PERMIT_TOO_LONG             its time ends further ahead than a used permit is remembered
 *   8 PERMIT_TOOL_MISMATCH        for another manifest
 *   9 PERMIT_ARGUMENTS_MISMATCH   for other arguments
 *  10 PERMIT_PRINCIPAL_MISSING    names no tenant, agent, session or call
 *  11 PERMIT_USED                 it has been used
 *
 * Single use needs no record on disk: a used permit is remembered until it expires, and no permit outlives the boot it
 * names, because a boot id is never used twice. All of it runs without a pause, so of two
 * simultaneous uses exactly one wins.
 */
export class PermitChecker {
  readonly #options: PermitCheckerOptions;
  readonly #usedUntil = new Map<string, number>();
  #latestMs = 0;

  constructor(options: PermitCheckerOptions) {
    this.#options = options;
  }

  /**
   * Claims the permit for the one run it allows.
   * @throws RpcError PERMISSION_DENIED with the reason.
   */
  claim(request: RunRequest): PermittedCall {
    const signed = request.permit;
    if (signed === undefined || signed.payload.length === 0) throw permitRefusal("PERMIT_MISSING");
    switch (this.#options.verifier.verify("permit", signed)) {
      case "unknown key":
        throw permitRefusal("PERMIT_FORGED");
      case "bad signature":
        throw permitRefusal("PERMIT_SIGNATURE_INVALID");
      case "ok":
        return this.#claim(decodeClaims(signed.payload), request);
    }
  }

  #claim(claims: PermitClaims, request: RunRequest): PermittedCall {
    const { runnerId, bootId } = this.#options;
    if (claims.runnerId !== runnerId || claims.bootId !== bootId) throw permitRefusal("PERMIT_WRONG_RUNNER");
    const nowMs = this.#now();
    const expiresMs = toMs(claims.expireTime);
    if (expiresMs <= nowMs) throw permitRefusal("PERMIT_EXPIRED");
    if (expiresMs > nowMs + MAX_PERMIT_MS) throw permitRefusal("PERMIT_TOO_LONG");
    if (sha256Hex(request.manifestJson) !== claims.toolDigest) throw permitRefusal("PERMIT_TOOL_MISMATCH");
    if (sha256Hex(request.argumentsJson) !== claims.argumentsHash) throw permitRefusal("PERMIT_ARGUMENTS_MISMATCH");
    const call = parsePrincipal(claims);
    if (call === undefined) throw permitRefusal("PERMIT_PRINCIPAL_MISSING");
    this.#markUsed(claims.permitId, expiresMs, nowMs);
    return call;
  }

  /** Never goes back, so that no permit that was forgotten as expired becomes valid again. */
  #now(): number {
    this.#latestMs = Math.max(this.#latestMs, this.#options.now());
    return this.#latestMs;
  }

  #markUsed(permitId: string, expiresMs: number, nowMs: number): void {
    if (this.#usedUntil.has(permitId)) throw permitRefusal("PERMIT_USED");
    // Insertion order is nearly expiry order: what is left behind a longer-lived one goes with it, within MAX_PERMIT_MS.
    for (const [id, untilMs] of this.#usedUntil) {
      if (untilMs > nowMs) break;
      this.#usedUntil.delete(id);
    }
    if (this.#usedUntil.size >= MAX_REMEMBERED) {
      throw new RpcError({
        code: "RESOURCE_EXHAUSTED",
        reason: "RUNNER_BUSY",
        message: "The runner remembers as many used permits as it can; send the call again later.",
        retryAfterMs: 1000,
      });
    }
    this.#usedUntil.set(permitId, expiresMs);
  }
}

export type PermitCheckerOptions = {
  readonly runnerId: string;
  readonly bootId: string;
  readonly verifier: Verifier;
  readonly now: () => number;
};

/** What a valid permit says about its call. */
export type PermittedCall = {
  readonly callId: string;
  readonly tenant: string;
  readonly agent: string;
  readonly session: string;
  /** Empty where it acts for nobody. */
  readonly user: string;
  readonly tool: string;
  readonly toolDigest: string;
  /** Zero leaves a bound to the manifest. */
  readonly limits: {
    readonly wallMs: number;
    readonly cpuMs: number;
    readonly memoryBytes: number;
    readonly outputBytes: number;
    readonly pids: number;
  };
  readonly egress: readonly string[];
  /** How many calls it was made through. */
  readonly depth: number;
};

/** How far ahead a permit may expire; also how long a used one is remembered at most. */
export const MAX_PERMIT_MS = 60_000;
/** About 100 MB of ids: 8,000 calls a second, each permit used as soon as it is made. */
const MAX_REMEMBERED = 500_000;

const ALTERED = "Run the call through the broker: a permit cannot be changed once it is signed.";
const FRESH = "Ask the broker for a new permit.";
const REASONS = {
  PERMIT_MISSING: "The call has no permit. Run it through the broker.",
  PERMIT_FORGED:
    "The permit is signed by a key this runner does not trust. Add the broker's public key to trusted_keys.",
  PERMIT_SIGNATURE_INVALID: `The permit's signature does not match it. ${ALTERED}`,
  PERMIT_MALFORMED: "The permit has claims this runner cannot read. Run broker and runner of the same version.",
  PERMIT_WRONG_RUNNER: `The permit is for another runner, or for an earlier start of this one. ${FRESH}`,
  PERMIT_EXPIRED: `The permit has expired. ${FRESH}`,
  PERMIT_TOO_LONG: `The permit expires more than ${MAX_PERMIT_MS / 1000} s ahead. Check the clocks, then ask for a new one.`,
  PERMIT_TOOL_MISMATCH: "The permit is for another manifest than the one sent. Send the manifest that was decided on.",
  PERMIT_ARGUMENTS_MISMATCH:
    "The permit is for other arguments than those sent. Send the arguments that were decided on.",
  PERMIT_PRINCIPAL_MISSING: "The permit names no tenant, agent, session or call. Run the call through the broker.",
  PERMIT_USED: `The permit has been used: it allows one run. ${FRESH}`,
} as const;

/** The one error for a permit that is no good. */
export function permitRefusal(reason: keyof typeof REASONS): RpcError {
  return new RpcError({ code: "PERMISSION_DENIED", reason, field: "permit", message: REASONS[reason] });
}

/** A claim this build does not know may narrow the permit: better none than part of it. */
function decodeClaims(payload: Uint8Array): PermitClaims {
  let claims: PermitClaims;
  try {
    claims = fromBinary(PermitClaimsSchema, payload);
  } catch {
    throw permitRefusal("PERMIT_MALFORMED");
  }
  const parts = [claims, claims.ref, claims.principal, claims.limits, claims.expireTime];
  if (claims.permitId === "" || parts.some((part) => part?.$unknown !== undefined))
    throw permitRefusal("PERMIT_MALFORMED");
  return claims;
}

function parsePrincipal(claims: PermitClaims): PermittedCall | undefined {
  const { ref, principal, limits } = claims;
  if (ref === undefined || principal === undefined) return undefined;
  const names = [principal.tenant, principal.agent, principal.session, ref.callId];
  if (!names.every((name) => NAME.test(name)) || ref.session !== principal.session) return undefined;
  return {
    callId: ref.callId,
    tenant: principal.tenant,
    agent: principal.agent,
    session: principal.session,
    user: principal.user,
    tool: claims.tool,
    toolDigest: claims.toolDigest,
    limits: {
      wallMs: Number(limits?.wallMs ?? 0n),
      cpuMs: Number(limits?.cpuMs ?? 0n),
      memoryBytes: Number(limits?.memoryBytes ?? 0n),
      outputBytes: Number(limits?.outputBytes ?? 0n),
      pids: limits?.pids ?? 0,
    },
    egress: claims.egress,
    depth: claims.depth,
  };
}

function toMs(time: PermitClaims["expireTime"]): number {
  return time === undefined ? 0 : Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6);
}

import type { Status } from "../../proto/google/rpc/status_pb.ts";
import { DEFAULT_MAX_CALLS } from "../shared/manifest.ts";
import { namesTool } from "../shared/names.ts";
import { MAX_DEPTH } from "../shared/nesting.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { toStatus } from "../shared/rpc/status.ts";
import type { Tool } from "./catalog.ts";
import type { Ancestor, Call, CallView, RunResult } from "./model.ts";
import { signatureOf } from "./model.ts";

/**
 * Calls that a running program makes. Each is a call like any other, with a record, a decision and a price of its own,
 * and with the calls it was made by as its ancestors. What a program may do is never more than what every one of those
 * may: the tool must be granted by the manifest of each, and policy sees them all.
 */

/** A call as a program asked for it: nothing of it has been checked. */
export type Asked = { readonly tool: string; readonly argumentsJson: string };

/** What the program gets. */
export type Answer =
  | { readonly case: "resultJson"; readonly value: string }
  | { readonly case: "error"; readonly value: Status };

export function ancestorsOf({ callId, principal, tool, argumentsHash, ancestors = [] }: Call): readonly Ancestor[] {
  return [{ callId, principal, tool, argumentsHash }, ...ancestors];
}

/**
 * @param find the manifests of the ancestors, as the catalog has them now: a grant taken back is gone at once.
 * @throws RpcError when one of the calls above does not grant it.
 */
export function demandGrant(tool: string, chain: readonly Ancestor[], find: (name: string) => Tool | undefined): void {
  if (chain.length > MAX_DEPTH) {
    const message = `Calls nest at most ${MAX_DEPTH} deep, and ${chain[0]?.tool} is that deep; do it from the program above.`;
    throw new RpcError({ code: "FAILED_PRECONDITION", reason: "NESTING_TOO_DEEP", message });
  }
  const without = chain.find((ancestor) => !mayCall(find(ancestor.tool), tool));
  if (without === undefined) return;
  const message = `${without.tool} may not call ${tool}: an operator can name it in sandbox.calls of its manifest.`;
  throw new RpcError({ code: "PERMISSION_DENIED", reason: "CALL_NOT_GRANTED", field: "tool", message });
}

/** A program that calls what it was called by, in the same words, would go on for ever. @throws RpcError */
export function refuseCircle(call: Pick<Call, "tool" | "argumentsHash">, chain: readonly Ancestor[]): void {
  if (!chain.some((ancestor) => signatureOf(ancestor) === signatureOf(call))) return;
  const message = `${call.tool} calls itself with the same arguments; change the arguments.`;
  throw new RpcError({ code: "FAILED_PRECONDITION", reason: "LOOP_DETECTED", message });
}

/** Whether the manifest of one tool lets its programs call another. */
export function mayCall(tool: Tool | undefined, called: string): boolean {
  const { sandbox } = tool?.manifest ?? {};
  return sandbox?.kind === "isolate" && namesTool(sandbox.calls ?? [], called);
}

export function maxCallsOf({ manifest: { sandbox } }: Tool): number {
  return (sandbox.kind === "isolate" ? sandbox.max_calls : undefined) ?? DEFAULT_MAX_CALLS;
}

/** Whether a program waits for people in its sandbox, within its wall clock, or is told that it must not. */
export function waitsForPeople({ manifest: { sandbox } }: Tool): boolean {
  return sandbox.kind === "isolate" && sandbox.nested_approval === "wait";
}

/** Performs one nested call to its end. @throws RpcError for what was refused. */
export type Perform = (asked: Asked, signal: AbortSignal) => Promise<CallView>;

/** A run whose program may make calls: they have ended before it has. */
export async function withCalls<T>(
  most: number,
  signal: AbortSignal,
  perform: Perform,
  run: (onCall: NestedCalls["call"]) => Promise<T>,
): Promise<T> {
  const nested = new NestedCalls(most, signal, perform);
  try {
    return await run(nested.call);
  } finally {
    await nested.end();
  }
}

/** The calls of one run: counted, and none outlives it. */
export class NestedCalls {
  readonly #most: number;
  readonly #perform: Perform;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #going = new Set<Promise<unknown>>();
  #made = 0;

  constructor(most: number, signal: AbortSignal, perform: Perform) {
    this.#most = most;
    this.#perform = perform;
    this.#signal = AbortSignal.any([signal, this.#stop.signal]);
  }

  /** Never rejects. */
  readonly call = async (asked: Asked): Promise<Answer> => {
    const going = this.#answer(asked);
    this.#going.add(going);
    const answer = await going;
    this.#going.delete(going);
    return answer;
  };

  /** Ends what is under way, and resolves once it has ended. */
  async end(): Promise<void> {
    this.#stop.abort(new RpcError({ code: "CANCELLED", reason: "PROGRAM_ENDED", message: "Its program has ended." }));
    await Promise.all(this.#going);
  }

  async #answer(asked: Asked): Promise<Answer> {
    try {
      if (++this.#made > this.#most) throw tooMany(this.#most);
      this.#signal.throwIfAborted();
      return { case: "resultJson", value: resultOf(await this.#perform(asked, this.#signal)) };
    } catch (thrown) {
      return { case: "error", value: toStatus(RpcError.from(thrown)) };
    }
  }
}

function tooMany(most: number): RpcError {
  const message = `The program has made its ${most} calls; an operator can raise sandbox.max_calls in its manifest.`;
  return new RpcError({ code: "RESOURCE_EXHAUSTED", reason: "TOO_MANY_CALLS", message });
}

/** The value that the tool returned, as JSON; what it printed where it returned none. @throws RpcError */
function resultOf({ call, progress }: CallView): string {
  const fail = (reason: string, message: string, code: "UNKNOWN" | "CANCELLED" | "FAILED_PRECONDITION"): RpcError =>
    new RpcError({ code, reason, message, metadata: { call_id: call.callId } });
  switch (progress.kind) {
    case "pending_approval":
    case "running":
      throw fail("CALL_UNFINISHED", "The call has not ended in time.", "UNKNOWN");
    case "ended":
      break;
  }
  const { outcome } = progress;
  switch (outcome.kind) {
    case "succeeded":
      return textOf(outcome.result);
    case "failed": {
      const { error, end } = outcome.result;
      throw fail("TOOL_FAILED", error === "" ? `The tool failed: ${end}.` : error, "UNKNOWN");
    }
    case "cancelled":
      throw fail("CALL_CANCELLED", outcome.reason, "CANCELLED");
    case "outcome_unknown":
      throw fail("OUTCOME_UNKNOWN", outcome.message, "UNKNOWN");
    case "refused":
      throw fail(outcome.refusal.reason, outcome.refusal.message, "FAILED_PRECONDITION");
  }
}

function textOf({ resultJson, stdout }: RunResult): string {
  return resultJson !== "" || stdout === "" ? resultJson : JSON.stringify(stdout);
}

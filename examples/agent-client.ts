import { setTimeout as pause } from "node:timers/promises";
import { ApprovalState, type ApprovalsService } from "../proto/interlock/v1/approvals_pb.ts";
import { type BrokerService, type Call, CallState } from "../proto/interlock/v1/broker_pb.ts";
import { RpcError } from "../services/shared/rpc/errors.ts";
import type { Client } from "../services/shared/rpc/types.ts";
import { AgentSession, type Answer, toAnswer } from "./session.ts";

/** How long a service may be away before the agent gives up on it. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 250;

/**
 * An agent that outlives a restart of what it talks to: a call whose stream broke is asked for again under the same
 * idempotency key, which returns the first outcome; one that waits for people is followed by its id.
 */
export class PatientAgent implements AsyncDisposable {
  readonly session: string;
  readonly #broker: Client<typeof BrokerService>;
  #stream: AgentSession;
  #asked = 0;

  constructor(broker: Client<typeof BrokerService>, session: string) {
    this.#broker = broker;
    this.session = session;
    this.#stream = new AgentSession(broker, session);
  }

  /** `onParked` runs when the call starts to wait for people; the answer comes once they have answered. */
  async call(tool: string, args: unknown, onParked: (call: Call) => Promise<void>, waitMs: number): Promise<Answer> {
    const argumentsJson = JSON.stringify(args);
    const key = `step-${++this.#asked}`;
    const { parked, ended } = await patiently(async () => {
      const inFlight = (await this.#open()).call(tool, argumentsJson, key);
      return { parked: await inFlight.parked, ended: inFlight.ended };
    });
    if (parked === undefined) return await ended;
    await onParked(parked);
    try {
      return await ended;
    } catch (error) {
      if (!isAway(error)) throw error;
      return await patiently(() => this.#follow(parked), waitMs);
    }
  }

  async #open(): Promise<AgentSession> {
    if (this.#stream.broken !== undefined) {
      await this.#stream[Symbol.asyncDispose]();
      this.#stream = new AgentSession(this.#broker, this.session);
    }
    return this.#stream;
  }

  async #follow(parked: Call): Promise<Answer> {
    if (parked.ref === undefined) throw new Error("the broker answered without the call's id");
    for await (const { kind } of this.#broker.watch({ ref: parked.ref })) {
      if (kind.case === "call" && isOver(kind.value.state)) return toAnswer(kind.value);
    }
    throw new RpcError({ code: "UNAVAILABLE", reason: "STREAM_ENDED", message: "The broker went away." });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stream[Symbol.asyncDispose]();
  }
}

/** Says yes to exactly the call that waits, as the reviewer whose key the client holds. */
export async function approve(call: Call, approvals: Client<typeof ApprovalsService>, comment: string): Promise<void> {
  const { approvalId } = call;
  await patiently(async () => {
    const { approval } = await approvals.getApproval({ approvalId }, soon());
    // A yes whose answer was lost on the way counts: it is not given twice.
    if (approval === undefined || approval.state === ApprovalState.APPROVED) return;
    await approvals.approve({ approvalId, argumentsHash: approval.argumentsHash, comment }, soon());
  });
}

/** Tries again while the other end is away; every other error is the answer. */
export async function patiently<T>(attempt: () => Promise<T>, patienceMs = PATIENCE_MS): Promise<T> {
  const deadlineMs = Date.now() + patienceMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isAway(error) || Date.now() > deadlineMs) throw error;
      await pause(RETRY_MS);
    }
  }
}

export function soon(): { readonly deadlineMs: number } {
  return { deadlineMs: Date.now() + 10_000 };
}

function isAway(error: unknown): boolean {
  return error instanceof RpcError && (error.code === "UNAVAILABLE" || error.code === "DEADLINE_EXCEEDED");
}

function isOver(state: CallState): boolean {
  return state !== CallState.PENDING_APPROVAL && state !== CallState.RUNNING;
}

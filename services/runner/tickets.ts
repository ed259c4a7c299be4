import { randomBytes } from "node:crypto";
import type { AnswerRequest } from "../../proto/interlock/v1/runner_pb.ts";
import { JsonError, parseJson } from "../shared/json.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { fromStatus } from "../shared/rpc/status.ts";
import type { CallAnswer } from "./backend.ts";

/**
 * Who may answer a program's call: only the broker that runs the program was given the call's ticket, 128 random bits,
 * and it is good once.
 */
export class Tickets {
  readonly #open = new Map<string, (answer: CallAnswer) => void>();

  /** Sends a call out with a ticket of its own and waits for the answer. Never rejects. */
  async issue(signal: AbortSignal, send: (ticket: string) => void): Promise<CallAnswer> {
    const ticket = randomBytes(16).toString("base64url");
    const { promise, resolve } = Promise.withResolvers<CallAnswer>();
    const giveUp = (): void => resolve({ kind: "error", error: ended() });
    if (signal.aborted) return { kind: "error", error: ended() };
    signal.addEventListener("abort", giveUp, { once: true });
    this.#open.set(ticket, resolve);
    try {
      send(ticket);
      return await promise;
    } finally {
      this.#open.delete(ticket);
      signal.removeEventListener("abort", giveUp);
    }
  }

  /** @throws RpcError when nobody waits for it, or it is no answer. */
  answer({ ticket, outcome }: AnswerRequest): void {
    const resolve = this.#open.get(ticket);
    if (resolve === undefined) {
      const message = "No program waits for this answer: its run has ended, or it was answered before.";
      throw new RpcError({ code: "NOT_FOUND", reason: "TICKET_UNKNOWN", field: "ticket", message });
    }
    switch (outcome.case) {
      case "resultJson":
        resolve({ kind: "value", json: parseResult(outcome.value) });
        break;
      case "error":
        resolve({ kind: "error", error: fromStatus(outcome.value) });
        break;
      case undefined: {
        const message = "Set outcome: it is missing.";
        throw new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_MISSING", field: "outcome", message });
      }
    }
  }
}

function parseResult(json: string): string {
  if (json === "") return "";
  try {
    parseJson(json);
    return json;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    const message = `Change result_json: ${error.message}`;
    throw new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field: "result_json", message });
  }
}

function ended(): RpcError {
  return new RpcError({ code: "CANCELLED", reason: "PROGRAM_ENDED", message: "The program that called has ended." });
}

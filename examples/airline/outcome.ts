import { type Call, CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { stateWord } from "../../services/cli/print.ts";
import type { RpcError } from "../../services/shared/rpc/errors.ts";
import type { Answer } from "../session.ts";

/** What Interlock said to one recorded call: exactly one verdict each. */
export const VERDICTS = ["allowed", "approval", "denied", "budget", "loop", "schema", "error"] as const;
export type Verdict = (typeof VERDICTS)[number];

export type Outcome = {
  readonly verdict: Verdict;
  /** How the answer compares with the recording; undefined when nothing ran or nothing was recorded. */
  readonly result: "same" | "different" | undefined;
  /** Why not, in a line; empty when it was allowed. */
  readonly note: string;
};

/** `parked`: people were asked. Their answer does not change what policy said first. */
export function outcomeOf(answer: Answer, parked: boolean, recorded: string | undefined): Outcome {
  if (answer.kind === "refused") {
    const note = `${answer.error.reason}: ${answer.error.message}`;
    return { verdict: parked ? "approval" : verdictOf(answer.error), result: undefined, note };
  }
  const { call } = answer;
  const ran = call.state === CallState.SUCCEEDED || call.state === CallState.FAILED;
  if (parked && ran) return { verdict: "approval", result: compare(call, recorded), note: "" };
  if (parked)
    return { verdict: "approval", result: undefined, note: `it waited for a person, and was ${stateWord(call.state)}` };
  if (!ran) return { verdict: "error", result: undefined, note: `the call ended as ${stateWord(call.state)}` };
  return { verdict: "allowed", result: compare(call, recorded), note: call.result?.error ?? "" };
}

function compare(call: Call, recorded: string | undefined): Outcome["result"] {
  if (recorded === undefined) return undefined;
  return call.result?.resultJson === JSON.stringify(recorded) ? "same" : "different";
}

/** By the stage that refused: only what a stage decided is its verdict; a stage that failed is an error. */
function verdictOf(error: RpcError): Verdict {
  switch (error.metadata["stage"]) {
    case "resolve":
      return error.code === "INVALID_ARGUMENT" || error.code === "NOT_FOUND" ? "schema" : "error";
    case "guard":
      return error.reason.includes("LOOP") ? "loop" : "error";
    case "decide":
      return error.code === "PERMISSION_DENIED" ? "denied" : "error";
    case "reserve":
      return error.code === "RESOURCE_EXHAUSTED" ? "budget" : "error";
    case undefined:
    case "":
      return error.code === "INVALID_ARGUMENT" ? "schema" : "error";
  }
  return "error";
}

import { JournalUnavailable } from "../shared/journal/journal.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { FileProblems, formatProblem } from "../shared/yaml-file.ts";
import { jsonLine, printable } from "./print.ts";

/** What the shell is told. Documented in the help and in docs/cli.md. */
export const EXIT = { ok: 0, failed: 1, usage: 2, refused: 3, pending: 4, unavailable: 5, internal: 70 } as const;

export const EXIT_HELP = `
Exit codes:
  0   done
  1   the tool ran and failed, or what was checked does not hold
  2   the command, its input or a file it reads is wrong
  3   refused: by policy, a budget, a loop, a kill switch, a person, or for want of a key
  4   the call waits for a person, or still runs
  5   Interlock, or a part of it, cannot start or be reached, or the deadline passed
  70  a bug in Interlock`;

/** A failure the command itself found. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: number;
  constructor(message: string, exitCode: number = EXIT.usage, options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/**
 * What an operator can mend comes from the services as an Error with a sentence, or from the system with a code; what
 * only a programmer can mend comes as something else, and stays what it is.
 */
export async function mendable<T>(exitCode: number, action: () => T | Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const isSentence = error instanceof Error && error.constructor === Error;
    if (!isSentence && !(error instanceof JournalUnavailable)) throw error;
    throw new CliError(sentence(error.message), exitCode, { cause: error });
  }
}

function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

export function exitCodeOf(error: unknown): number {
  if (error instanceof CliError) return error.exitCode;
  if (error instanceof FileProblems) return EXIT.usage;
  if (!(error instanceof RpcError)) return EXIT.internal;
  switch (error.code) {
    case "INVALID_ARGUMENT":
    case "NOT_FOUND":
    case "OUT_OF_RANGE":
    case "UNIMPLEMENTED":
    case "ALREADY_EXISTS":
      return EXIT.usage;
    case "PERMISSION_DENIED":
    case "RESOURCE_EXHAUSTED":
    case "FAILED_PRECONDITION":
    case "UNAUTHENTICATED":
    case "ABORTED":
      return EXIT.refused;
    case "UNAVAILABLE":
    case "DEADLINE_EXCEEDED":
    case "CANCELLED":
      return EXIT.unavailable;
    case "UNKNOWN":
    case "INTERNAL":
    case "DATA_LOSS":
      return EXIT.internal;
  }
}

/** One clear error on stderr: what, where, and how to mend it. What it quotes may come from an agent or a tool. */
export function printFailure(error: unknown, json: boolean): void {
  console.error(json ? jsonLine({ error: failureToJson(error) }) : printable(failureText(error)));
  if (process.env["INTERLOCK_DEBUG"] !== undefined) console.error(error);
}

/** What commander found wrong with a command line, in the shape of every other failure. */
export function usageToJson(message: string): string {
  return jsonLine({ error: { reason: "USAGE_INVALID", message: message.trim().replace(/^error: /, "") } });
}

function failureText(error: unknown): string {
  if (error instanceof FileProblems) return error.problems.map(formatProblem).join("\n");
  if (error instanceof RpcError) {
    const field = error.field === undefined ? "" : ` (${error.field})`;
    const metadata = Object.entries(error.metadata).map(([key, value]) => `\n  ${key}: ${oneLine(value)}`);
    return `${error.reason}${field}: ${oneLine(error.message)}${metadata.join("")}`;
  }
  if (error instanceof CliError) return `interlock: ${error.message}`;
  return `interlock: a bug: ${messageOf(error)}\n  INTERLOCK_DEBUG=1 shows where; please report it.`;
}

/** A line of its own would look like one of ours. */
function oneLine(text: string): string {
  return text.replaceAll("\n", "\n    ");
}

function failureToJson(error: unknown): unknown {
  if (error instanceof FileProblems) {
    const count = error.problems.length;
    const message = `${count} ${count === 1 ? "problem" : "problems"} in what operators write.`;
    return { reason: "FILE_INVALID", message, problems: error.problems };
  }
  if (error instanceof RpcError) {
    const { code, reason, message, field, metadata, retryAfterMs } = error;
    return { code, reason, message, field, metadata, retryAfterMs };
  }
  return { reason: error instanceof CliError ? REASONS[error.exitCode] : "INTERNAL", message: messageOf(error) };
}

const REASONS: Readonly<Record<number, string>> = {
  [EXIT.failed]: "FAILED",
  [EXIT.usage]: "USAGE_INVALID",
  [EXIT.refused]: "KEY_MISSING",
  [EXIT.unavailable]: "UNAVAILABLE",
};

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

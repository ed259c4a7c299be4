import { RpcError } from "../shared/rpc/errors.ts";
import { FileProblems, formatProblem } from "../shared/yaml-file.ts";

/** What the shell is told. Documented in the help and in docs/cli.md. */
export const EXIT = { ok: 0, failed: 1, usage: 2, refused: 3, pending: 4, unavailable: 5, internal: 70 } as const;

export const EXIT_HELP = `
Exit codes:
  0   done
  1   the tool ran and failed, or what was checked does not hold
  2   the command, its input or a file it reads is wrong
  3   refused: by policy, a budget, a loop, a kill switch, a person, or for want of a key
  4   the call waits for a person
  5   Interlock, or a part of it, cannot be reached, or the deadline passed
  70  a bug in Interlock`;

/** A failure the command itself found. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: number;
  constructor(message: string, exitCode: number = EXIT.usage) {
    super(message);
    this.exitCode = exitCode;
  }
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

/** One clear error on stderr: what, where, and how to mend it. */
export function printFailure(error: unknown, json: boolean): void {
  if (json) {
    console.error(JSON.stringify({ error: failureToJson(error) }));
    return;
  }
  if (error instanceof FileProblems) {
    for (const problem of error.problems) console.error(formatProblem(problem));
  } else if (error instanceof RpcError) {
    const field = error.field === undefined ? "" : ` (${error.field})`;
    console.error(`${error.reason}${field}: ${error.message}`);
    for (const [key, value] of Object.entries(error.metadata)) console.error(`  ${key}: ${value}`);
    if (error.code === "INTERNAL" && error.cause !== undefined) console.error(error.cause);
  } else if (error instanceof CliError) {
    console.error(`interlock: ${error.message}`);
  } else {
    console.error(error);
  }
}

function failureToJson(error: unknown): unknown {
  if (error instanceof FileProblems) return { reason: "FILE_INVALID", problems: error.problems };
  if (error instanceof RpcError) {
    const { code, reason, message, field, metadata, retryAfterMs } = error;
    return { code, reason, message, field, metadata, retryAfterMs };
  }
  return { reason: "FAILED", message: error instanceof Error ? error.message : String(error) };
}

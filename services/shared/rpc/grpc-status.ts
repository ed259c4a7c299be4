import { Metadata, type StatusObject } from "@grpc/grpc-js";
import { timedOut } from "./call-scope.ts";
import { Code, RpcError } from "./errors.ts";
import { codeName, fromStatus, statusFromBinary, statusToBinary, toStatus } from "./status.ts";

/** RpcErrors as gRPC carries them: code, message, and google.rpc.Status in a trailer. */

const DETAILS = "grpc-status-details-bin";
/** Trailers beyond a peer's limit (8 KiB in many) cost it the whole answer, so long texts are cut. */
const MAX_MESSAGE_CHARS = 1024;
const MAX_DETAILS_BYTES = 4096;

export function toGrpcStatus(error: RpcError): StatusObject {
  const { code, reason } = error;
  // grpc-js percent-encodes the message, which throws for half a surrogate pair.
  const message = error.message.slice(0, MAX_MESSAGE_CHARS).toWellFormed();
  let details = statusToBinary(toStatus(error));
  if (details.length > MAX_DETAILS_BYTES) details = statusToBinary(toStatus(new RpcError({ code, reason, message })));
  const metadata = new Metadata();
  metadata.set(DETAILS, Buffer.from(details));
  return { code: Code[code], details: message, metadata };
}

/** Total: also for what grpc-js itself, or a proxy on the way, answered in the server's stead. */
export function fromGrpcStatus(status: StatusObject, address: string): RpcError {
  const sent = status.metadata.get(DETAILS)[0];
  if (sent instanceof Buffer) {
    try {
      return fromStatus(statusFromBinary(sent));
    } catch {
      // Details that cannot be read are as if not sent.
    }
  }
  const { details } = status;
  const code = codeName(status.code);
  switch (code) {
    case "DEADLINE_EXCEEDED":
      return RpcError.from(timedOut());
    case "UNAVAILABLE":
      return new RpcError({
        code,
        reason: "NOT_CONNECTED",
        message: `${address} does not answer (${why(details)}): start Interlock there, or mend the address or TLS files.`,
      });
    case "RESOURCE_EXHAUSTED":
      return details.includes("larger than max")
        ? tooLarge(details)
        : new RpcError({ code, reason: code, message: details });
    default:
      return new RpcError({ code, reason: code, message: details });
  }
}

/** grpc-js wraps the one thing of interest in words about its own resolver. */
function why(details: string): string {
  return /Last error: (?:Error: )?(.*?)(?: \(\d{4}-|\. Resolution note|\n|$)/.exec(details)?.[1] ?? details;
}

function tooLarge(what: string): RpcError {
  return new RpcError({
    code: "RESOURCE_EXHAUSTED",
    reason: "MESSAGE_TOO_LARGE",
    message: `${what}: send less, or raise max_message_bytes where the server is configured.`,
  });
}

import { RpcError } from "../../shared/rpc/errors.ts";

/** The HTTP status the engine answered with; undefined when it gave none, so that it is not there, or gone. */
export function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !("statusCode" in error)) return undefined;
  return typeof error.statusCode === "number" ? error.statusCode : undefined;
}

/** No answer for so long: the engine is not there. */
const ENGINE_MS = 30_000;

/** @throws Error without a status when the engine does not answer in time. */
export async function answered<T>(request: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no answer in ${ENGINE_MS} ms`)), ENGINE_MS);
  try {
    return await Promise.race([request, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Nothing has started. */
export function unavailable(message: string, cause?: unknown): RpcError {
  return new RpcError({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE", message, cause });
}

/** Before the start of a program: its sandbox's directory and sockets on this machine could not be made. */
export function placeFault(error: unknown): RpcError {
  const why = error instanceof Error && "code" in error ? ` (${error.code})` : "";
  return unavailable(`The runner cannot write to its temporary directory${why}; ${MEND_PLACE}.`, error);
}
const MEND_PLACE = "make room there, or start it with TMPDIR naming a directory that has some";

/** Before the start of a container. */
export function createFault(error: unknown, image: string): RpcError {
  switch (statusOf(error)) {
    case undefined:
      return unavailable(NO_ENGINE, error);
    case 404:
      return unavailable(`The pinned image ${image} is not on this machine's engine; run \`make images\`.`, error);
    default:
      return unavailable("The Docker engine could not make the sandbox; the operator's log says why.", error);
  }
}

/** From the start on: the tool may have done something. */
export function lostFault(error: unknown): RpcError {
  return new RpcError({
    code: "UNKNOWN",
    reason: "SANDBOX_LOST",
    message: "The Docker engine vanished while the call ran; its sandbox was killed, and how far it came is not known.",
    cause: error,
  });
}

export const NO_ENGINE =
  "No Docker engine answers on this machine; run deploy/ensure-docker.sh as root, or use tools of kind isolate.";

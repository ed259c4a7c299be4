import type { CallScope } from "./call-scope.ts";
import { RpcError } from "./errors.ts";

/** The calls a server works on, so that it can stop without leaving one behind. */
export class OpenCalls {
  readonly #streams = new Set<CallScope>();
  #open = 0;
  #onIdle: (() => void) | undefined;

  begin(): void {
    this.#open += 1;
  }

  /** A call that may last: it is told when the server stops. */
  addStream(scope: CallScope): void {
    this.#streams.add(scope);
  }

  end(scope: CallScope): void {
    this.#streams.delete(scope);
    this.#open -= 1;
    if (this.#open === 0) this.#onIdle?.();
  }

  /** Ends every stream, telling its caller to come again. */
  endStreams(): void {
    for (const scope of this.#streams) {
      scope.fail(
        new RpcError({
          code: "UNAVAILABLE",
          reason: "SERVER_STOPPING",
          message: "This server is stopping: connect again in a moment.",
          retryAfterMs: 1000,
        }),
      );
    }
  }

  /** Resolves once no call is open. */
  idle(): Promise<void> {
    if (this.#open === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }
}

import type { Backend, RunSpec } from "../../services/runner/backend.ts";
import { openBuiltinBackend } from "../../services/runner/builtin.ts";

/** Masked wherever a tool shows it. */
export const SECRET = "hunter22-hunter22";

/** Held in their sandbox until the test lets them go. */
const HELD = ["t.held", "t.safe"];

/** The real builtins, except that some tools stay until they are let go or killed. It knows all that ran. */
export class Sandbox implements Backend {
  readonly kind = "builtin";
  readonly ran: RunSpec[] = [];
  readonly #builtin = openBuiltinBackend();
  readonly #held = new Map<string, () => void>();
  readonly describe = this.#builtin.describe;
  readonly check = this.#builtin.check;
  /** Set: what the sandbox machinery throws once it has run the call. */
  fault: Error | undefined;

  runsOf(tool: string): number {
    return this.ran.filter((spec) => spec.tool === tool).length;
  }

  get holding(): number {
    return this.#held.size;
  }

  letGo(): void {
    for (const go of this.#held.values()) go();
  }

  readonly run: Backend["run"] = async (spec, io) => {
    this.ran.push(spec);
    if (HELD.includes(spec.tool)) {
      io.onOutput("stdout", `started ${SECRET}`);
      await this.#hold(spec.callId, io.signal);
    }
    if (this.fault !== undefined) throw this.fault;
    const result = await this.#builtin.run(spec, io);
    return io.signal.aborted ? { ...result, end: "killed", resultJson: "" } : result;
  };

  async [Symbol.asyncDispose](): Promise<void> {
    this.letGo();
  }

  async #hold(callId: string, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held.set(callId, resolve);
    signal.addEventListener("abort", () => resolve());
    if (signal.aborted) resolve();
    await promise;
    this.#held.delete(callId);
  }
}

import { judgeLoop, type LoopLimits, type LoopVerdict } from "../../services/broker/guard/loops.ts";
import { countCall, NO_REPEATS, type RepeatWindow } from "../../services/broker/guard/repeats.ts";
import { hasFailed, resultKeyOf, signatureOf } from "../../services/broker/guard/signature.ts";
import { countEnd, countOpen, type LoopWindow } from "../../services/broker/guard/window.ts";
import type { RunResult } from "../../services/broker/model.ts";
import { canonicalJson, type JsonObject } from "../../services/shared/json.ts";
import { type Manifest, manifestSchema } from "../../services/shared/manifest.ts";

/** Sends calls past the loop rules as a session's record would count them, and says what each was told. */

export type Step = {
  readonly manifest: Manifest;
  readonly args: JsonObject;
  /** What the tool answers when it is let through: JSON. */
  readonly resultJson: string;
  readonly error?: string;
};

export class LoopWalk {
  readonly #limits: LoopLimits;
  #repeats: RepeatWindow = NO_REPEATS;
  #window: LoopWindow = [];
  #calls = 0;

  constructor(limits: LoopLimits) {
    this.#limits = limits;
  }

  /** A call that is asked about is let through by its person; one that is refused is counted as refused. */
  take({ manifest, args, resultJson, error = "" }: Step): LoopVerdict {
    const { name: tool } = manifest;
    const signature = signatureOf(manifest, args, canonicalJson(args));
    const call = { callId: `call-${this.#calls++}`, tool };
    const verdict = judgeLoop({ repeats: this.#repeats, window: this.#window }, { tool, signature }, this.#limits);
    if (verdict.level === "stopped") {
      this.#window = countEnd(this.#window, call, signature, { kind: "vetoed", result: "" });
      return verdict;
    }
    const result: RunResult = { ...RAN, resultJson, error };
    this.#repeats = countCall(this.#repeats, signature.key);
    this.#window = countOpen(this.#window, call, signature);
    const ending = { kind: hasFailed(result) ? "failed" : "done", result: resultKeyOf(result) } as const;
    this.#window = countEnd(this.#window, call, signature, ending);
    return verdict;
  }

  get window(): LoopWindow {
    return this.#window;
  }
}

export const RAN: RunResult = {
  ...{ end: "exited", exitCode: 0, resultJson: "", stdout: "", stderr: "", truncated: false, error: "" },
  usage: { wallMs: 1, cpuMs: 1, peakMemoryBytes: 0, outputBytes: 0 },
  enforcement: { kind: "builtin", isolationClass: "none", enforced: [], missing: [] },
};

export function toolOf(name: string, change: Partial<Manifest> = {}): Manifest {
  const parsed = manifestSchema.parse({
    ...{ name, version: "1.0.0", description: "A tool of the test.", impact: "low", effects: ["reads"] },
    arguments: { type: "object" },
    sandbox: { kind: "builtin", name: "noop" },
  });
  return { ...parsed, ...change };
}

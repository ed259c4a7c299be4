import { describe, expect, it } from "vitest";
import type { RunIo, RunSpec } from "./backend.ts";
import { openBuiltinBackend } from "./builtin.ts";

const backend = openBuiltinBackend();
const io: RunIo = { onOutput: () => {}, signal: new AbortController().signal };

function specOf(sandbox: RunSpec["sandbox"], outputBytes = 100): RunSpec {
  return {
    ...{
      callId: "c1",
      tenant: "demo",
      agent: "a1",
      session: "s1",
      user: "",
      impact: "low",
      tool: "test.tool",
      egress: [],
      secrets: [],
      argumentsJson: '{"a":"ü"}',
      depth: 0,
    },
    sandbox,
    limits: { wallMs: 1_000, cpuMs: 1_000, memoryBytes: 8 << 20, outputBytes, pids: 1, egressBytes: 0 },
  };
}

describe("a builtin", () => {
  const runs: [name: "noop" | "echo", outputBytes: number, want: object][] = [
    ["noop", 0, { exitCode: 0, resultJson: "", error: "" }],
    ["echo", 10, { exitCode: 0, resultJson: '{"a":"ü"}', error: "" }],
    ["echo", 9, { exitCode: 1, resultJson: "", error: "The result is 10 bytes; 9 are allowed. Return less." }],
  ];
  it.each(runs)("%s within %i bytes", async (name, outputBytes, want) => {
    const result = await backend.run(specOf({ kind: "builtin", name }, outputBytes), io);
    expect(result).toMatchObject({ end: "exited", ...want });
    expect(result.enforcement).toMatchObject({ kind: "builtin", isolationClass: "none" });
  });

  it("runs nobody's code", async () => {
    const spec = specOf({ kind: "isolate", code: "return 1" });
    const refusal = expect.objectContaining({ code: "FAILED_PRECONDITION", reason: "SANDBOX_UNAVAILABLE" });
    expect(() => backend.check(spec)).toThrow(refusal);
    await expect(backend.run(spec, io)).rejects.toThrow(refusal);
  });
});

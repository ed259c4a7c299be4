import fc from "fast-check";
import { expect, it } from "vitest";
import { formatEgressRule } from "../shared/egress.ts";
import { manifestSchema } from "../shared/manifest.ts";
import type { PermittedCall } from "./permit.ts";
import { planRun } from "./plan.ts";

const NONE = { wallMs: 0, cpuMs: 0, memoryBytes: 0, outputBytes: 0, pids: 0 };

function planOf(call: Partial<PermittedCall>, egress: readonly string[] = []) {
  const manifest = manifestSchema.parse({
    ...{ name: "test.tool", version: "1.0.0", description: "A test's.", impact: "low", arguments: { type: "object" } },
    sandbox: { kind: "builtin", name: "noop" },
    limits: { wall_ms: 1_000, cpu_ms: 500, memory_bytes: 64 << 20, output_bytes: 4_096, pids: 8 },
    egress,
  });
  const permitted = {
    callId: "c1",
    tenant: "demo",
    agent: "a1",
    session: "s1",
    user: "",
    tool: "test.tool",
    toolDigest: "",
  };
  return planRun({ ...permitted, limits: NONE, egress: [], depth: 0, ...call }, manifest, '{"a":1}');
}

const MANIFEST = {
  wallMs: 1_000,
  cpuMs: 500,
  memoryBytes: 64 << 20,
  outputBytes: 4_096,
  pids: 8,
  egressBytes: 16 << 20,
};

it("is the permit's call, with its arguments as they came", () => {
  expect(planOf({})).toEqual({
    ...{ callId: "c1", tenant: "demo", agent: "a1", session: "s1", user: "", tool: "test.tool", impact: "low" },
    ...{ argumentsJson: '{"a":1}', egress: [], secrets: [], depth: 0 },
    sandbox: { kind: "builtin", name: "noop" },
    limits: MANIFEST,
  });
});

it("has the tighter of each two bounds, and never none", () => {
  const amount = fc.oneof(fc.constant(0), fc.nat(Number.MAX_SAFE_INTEGER));
  const limits = fc.record({ wallMs: amount, cpuMs: amount, memoryBytes: amount, outputBytes: amount, pids: amount });
  fc.assert(
    fc.property(limits, (permit) => {
      const planned = planOf({ limits: permit }).limits;
      for (const key of ["wallMs", "cpuMs", "memoryBytes", "outputBytes", "pids"] as const) {
        expect(planned[key]).toBe(permit[key] === 0 ? MANIFEST[key] : Math.min(permit[key], MANIFEST[key]));
      }
    }),
  );
});

const ways: [permit: string[], manifest: string[], planned: string[]][] = [
  [[], [], []],
  [["a.com:1"], [], []],
  [[], ["a.com:1"], []],
  [["a.com:1", "b.com:2"], ["b.com:2", "c.com:3"], ["b.com:2"]],
  [["GET *.a.com:443"], ["x.a.com:443/v1/*"], ["GET x.a.com:443/v1/*"]],
];
it.each(ways)("may reach what both allow: %j and %j", (permit, manifest, planned) => {
  expect(planOf({ egress: permit }, manifest).egress.map(formatEgressRule)).toEqual(planned);
});

it("is refused with a permit whose egress cannot be read, not run with a part of it", () => {
  const refusal = expect.objectContaining({ code: "PERMISSION_DENIED", reason: "PERMIT_MALFORMED" });
  expect(() => planOf({ egress: ["a.com:1", "A.com:01"] }, ["a.com:1"])).toThrowError(refusal);
});

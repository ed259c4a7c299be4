import { create } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { DecisionKind, DecisionSchema } from "../../proto/interlock/v1/types_pb.ts";
import { egressOf, REDACTED, redactResult } from "./measures.ts";
import type { RunResult } from "./model.ts";
import { fromDecision } from "./wire.ts";

/** What policy imposes on a run is honoured, or the call is denied. */

const RESULT: RunResult = {
  ...{ end: "exited", exitCode: 0, resultJson: "", stdout: "", stderr: "", truncated: false, error: "" },
  usage: { wallMs: 0, cpuMs: 0, peakMemoryBytes: 0, outputBytes: 0 },
  enforcement: { kind: "isolate", isolationClass: "process", enforced: [], missing: [] },
};

describe("redaction", () => {
  test.each<[name: string, given: Partial<RunResult>, want: Partial<RunResult>]>([
    ["a field of the result", { resultJson: '{"card":"4111","n":1}' }, { resultJson: `{"card":"${REDACTED}","n":1}` }],
    [
      "wherever it stands",
      { resultJson: '[{"a":{"card":{"no":1}}}]' },
      { resultJson: `[{"a":{"card":"${REDACTED}"}}]` },
    ],
    [
      "in a document inside a text",
      { resultJson: JSON.stringify('{"card":1}') },
      { resultJson: JSON.stringify('{"card":1}') },
    ],
    [
      "in a document inside a field",
      { resultJson: '{"body":"{\\"card\\":1}"}' },
      { resultJson: JSON.stringify({ body: `{"card":"${REDACTED}"}` }) },
    ],
    ["in what it printed, when that is JSON", { stdout: '{"card":1}\n' }, { stdout: `{"card":"${REDACTED}"}` }],
    ["all that it printed, when that is none", { stdout: "card: 4111\n" }, { stdout: REDACTED }],
    [
      "all that it complained of",
      { stderr: "card 4111", error: "bad card 4111" },
      { stderr: REDACTED, error: REDACTED },
    ],
    ["nothing of what is not there", {}, {}],
    ["a result without the field", { resultJson: '{"n":1}' }, { resultJson: '{"n":1}' }],
  ])("%s", (_name, given, want) => {
    expect(redactResult({ ...RESULT, ...given }, ["card"])).toEqual({ ...RESULT, ...want });
  });

  test("without a field named, nothing is touched", () => {
    const given = { ...RESULT, stdout: "card: 4111" };
    expect(redactResult(given, [])).toBe(given);
  });
});

test.each<[manifest: string[], egress: string[] | undefined, want: string[]]>([
  [["api.example.com:443"], undefined, ["api.example.com:443"]],
  [["api.example.com:443", "b.example.com:443"], ["api.example.com:443"], ["api.example.com:443"]],
  [["*.example.com:443"], ["GET api.example.com:443/v1/*"], ["GET api.example.com:443/v1/*"]],
  [["api.example.com:443"], ["evil.example.net:443"], []],
  [["api.example.com:443"], [], []],
  [[], ["api.example.com:443"], []],
])("a manifest's %j under %j is %j", (manifest, egress, want) => {
  expect(egressOf(manifest, egress === undefined ? {} : { egress })).toEqual(want);
});

describe("a decision whose obligations come with it", () => {
  const decisionOf = (obligations: object) =>
    fromDecision(create(DecisionSchema, { kind: DecisionKind.ALLOW, revision: "r", obligations }));

  test("that are known are kept", () => {
    const { kind, obligations } = decisionOf({
      egress: { rules: [] },
      redact: ["card"],
      notify: ["security"],
      imposed: ["egress", "redact", "notify", "wall_ms"],
    });
    expect([kind, obligations]).toEqual([
      "allow",
      expect.objectContaining({ egress: [], redact: ["card"], notify: ["security"] }),
    ]);
  });

  test("one that this broker does not know denies, and says so", () => {
    const { kind, reasons } = decisionOf({ imposed: ["wall_ms", "watermark"] });
    expect([kind, reasons]).toEqual([
      "deny",
      [expect.stringContaining("imposes watermark, which this broker does not know")],
    ]);
  });
});

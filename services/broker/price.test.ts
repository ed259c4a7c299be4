import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { manifestSchema } from "../shared/manifest.ts";
import type { RunResult } from "./model.ts";
import { actualOf, estimateOf, listedPrice, type Priced } from "./price.ts";

const MODELS = {
  small: { input_per_million: 150_000, output_per_million: 600_000 },
  large: { input_per_million: 3_000_000, output_per_million: 15_000_000 },
};

function toolOf(price: object, egress: readonly string[] = ["api.example.com:443"]): Priced {
  const manifest = manifestSchema.parse({
    ...{ name: "llm.ask", version: "1.0.0", description: "Asks a model.", impact: "low" },
    ...{ arguments: { type: "object" }, sandbox: { kind: "builtin", name: "noop" } },
    limits: { wall_ms: 2_500, output_bytes: 10_240, egress_bytes: 10_000 },
    ...{ price, egress },
  });
  return { manifest, models: MODELS };
}

const TOKENS = { model: "model", input: "prompt", output: "max_tokens", output_default: 1_000 };

const text = (amounts: readonly { unit: string; value: number }[]) =>
  amounts.map((a) => `${a.value} ${a.unit}`).join(", ");

function resultOf(result: unknown, usage: Partial<RunResult["usage"]> = {}): RunResult {
  return {
    ...{ end: "exited", exitCode: 0, resultJson: result === undefined ? "" : JSON.stringify(result), stdout: "" },
    ...{ stderr: "", truncated: false, error: "" },
    usage: { wallMs: 100, cpuMs: 7, peakMemoryBytes: 1, outputBytes: 2_048, ...usage },
    enforcement: { kind: "builtin", isolationClass: "", enforced: [], missing: [] },
  };
}

describe("what is held", () => {
  const cases: readonly [string, object, object, string][] = [
    ["one call is always counted", {}, {}, "1 calls"],
    ["whole numbers", { calls: 3, tokens: 7 }, {}, "3 calls, 7 tokens"],
    ["a fixed part", { usd_micros: { fixed: 5 } }, {}, "1 calls, 5 usd_micros"],
    [
      "by an argument",
      { usd_micros: { per_argument: [{ argument: "pages", units: 150 }] } },
      { pages: 4 },
      "1 calls, 600 usd_micros",
    ],
    [
      "by an argument, rounded up",
      { usd_micros: { per_argument: [{ argument: "n", units: 1, per: 1000 }] } },
      { n: 1001 },
      "1 calls, 2 usd_micros",
    ],
    [
      "by an argument that is not there",
      { usd_micros: { fixed: 1, per_argument: [{ argument: "n", units: 9 }] } },
      {},
      "1 calls, 1 usd_micros",
    ],
    ["by time: the limit", { usd_micros: { per_second: 40 } }, {}, "1 calls, 100 usd_micros"],
    ["by bytes: the limit", { usd_micros: { per_kilobyte: 5 } }, {}, "1 calls, 50 usd_micros"],
    ["by egress: the limit", { usd_micros: { per_egress: { units: 90 } } }, {}, "1 calls, 900000 usd_micros"],
    ["by egress, rounded up", { usd_micros: { per_egress: { units: 9, per: 7_000 } } }, {}, "1 calls, 13 usd_micros"],
    [
      "by tokens: a text by its bytes",
      { usd_micros: { tokens: TOKENS } },
      { model: "small", prompt: "x".repeat(3_000) },
      "1 calls, 750 usd_micros",
    ],
    [
      "by tokens: a number",
      { usd_micros: { tokens: TOKENS } },
      { model: "large", prompt: 1_000, max_tokens: 200 },
      "1 calls, 6000 usd_micros",
    ],
    [
      "tokens themselves",
      { tokens: { tokens: TOKENS } },
      { model: "?", prompt: "abcd", max_tokens: 10 },
      "1 calls, 12 tokens",
    ],
    [
      "all parts together",
      { usd_micros: { fixed: 1, per_second: 40, per_kilobyte: 5, tokens: TOKENS } },
      { model: "small", prompt: 0, max_tokens: 0 },
      "1 calls, 151 usd_micros",
    ],
  ];
  it.each(cases)("%s", (_name, price, args, expected) => {
    expect(text(estimateOf(toolOf(price), JSON.stringify(args)))).toBe(expected);
  });

  it("nothing for egress where there is no way out", () => {
    expect(text(estimateOf(toolOf({ usd_micros: { fixed: 3, per_egress: { units: 90 } } }, []), "{}"))).toBe(
      "1 calls, 3 usd_micros",
    );
  });

  const BY_N = { usd_micros: { per_argument: [{ argument: "n", units: Number.MAX_SAFE_INTEGER }] } };
  it.each([
    [
      "a model without a price",
      { usd_micros: { tokens: TOKENS } },
      { model: "huge", prompt: "x" },
      "MODEL_UNPRICED arguments.model",
    ],
    ["no model", { usd_micros: { tokens: TOKENS } }, { prompt: "x" }, "MODEL_UNPRICED arguments.model"],
    [
      "a name that every object has",
      { usd_micros: { tokens: TOKENS } },
      { model: "constructor", prompt: "x" },
      "MODEL_UNPRICED arguments.model",
    ],
    ["a text for a number", BY_N, { n: "9" }, "PRICE_ARGUMENT_INVALID arguments.n"],
    ["a number below zero", BY_N, { n: -1 }, "PRICE_ARGUMENT_INVALID arguments.n"],
    ["more than can be counted", BY_N, { n: 2 }, "PRICE_TOO_LARGE undefined"],
  ])("%s is refused", (_name, price, args, expected) => {
    let refused = "";
    try {
      estimateOf(toolOf(price), JSON.stringify(args));
    } catch (error) {
      const { reason, field } = error as { reason: string; field?: string };
      refused = `${reason} ${field}`;
    }
    expect(refused).toBe(expected);
  });

  it("a list of tools shows what no argument changes", () => {
    expect(text(listedPrice(toolOf({ usd_micros: { fixed: 5, per_second: 9 }, tokens: 3 })))).toBe(
      "1 calls, 5 usd_micros, 3 tokens",
    );
  });
});

describe("what is charged", () => {
  const llm = (believe: string) => ({ usd_micros: { fixed: 10, tokens: TOKENS, believe } });
  const args = { model: "large", prompt: 1_000, max_tokens: 1_000 };
  const usage = { input_tokens: 500, output_tokens: 100 };
  const cases: readonly [string, object, RunResult | undefined, string][] = [
    ["a lost run: the estimate", { cpu_ms: 50, usd_micros: 9 }, undefined, "1 calls, 50 cpu_ms, 9 usd_micros"],
    [
      "CPU as measured, a whole number as it stands",
      { cpu_ms: 50, usd_micros: 9 },
      resultOf(1),
      "1 calls, 7 cpu_ms, 9 usd_micros",
    ],
    ["time as measured", { usd_micros: { per_second: 40 } }, resultOf(1), "1 calls, 4 usd_micros"],
    ["bytes as measured", { usd_micros: { per_kilobyte: 5 } }, resultOf(1), "1 calls, 10 usd_micros"],
    ["egress as measured", { egress_bytes: 9_000 }, resultOf(1, { egressBytes: 1_234 }), "1 calls, 1234 egress_bytes"],
    ["no egress", { egress_bytes: 9_000 }, resultOf(1), "1 calls, 0 egress_bytes"],
    [
      "more egress than was held",
      { egress_bytes: 9_000 },
      resultOf(1, { egressBytes: 9_001 }),
      "1 calls, 9001 egress_bytes",
    ],
    ["a lost run's egress: the estimate", { egress_bytes: 9_000 }, undefined, "1 calls, 9000 egress_bytes"],
    [
      "by egress as measured",
      { usd_micros: { fixed: 1, per_egress: { units: 2, per: 1_000 } } },
      resultOf(1, { egressBytes: 1_501 }),
      "1 calls, 5 usd_micros",
    ],
    [
      "time as estimated, where that is believed",
      { usd_micros: { per_second: 40, believe: "estimate" } },
      resultOf(1),
      "1 calls, 100 usd_micros",
    ],
    ["tokens as reported", llm("reported"), resultOf({ text: "", usage }), "1 calls, 3010 usd_micros"],
    [
      "tokens as reported on stdout",
      llm("reported"),
      { ...resultOf(undefined), stdout: JSON.stringify({ usage }) },
      "1 calls, 3010 usd_micros",
    ],
    ["a sum as reported", llm("reported"), resultOf({ usage: { usd_micros: 77 } }), "1 calls, 77 usd_micros"],
    [
      "more than the estimate, as reported",
      llm("reported"),
      resultOf({ usage: { usd_micros: 9_999_999 } }),
      "1 calls, 9999999 usd_micros",
    ],
    [
      "what a tool reports that is not believed",
      llm("measured"),
      resultOf({ usage: { usd_micros: 0 } }),
      "1 calls, 18010 usd_micros",
    ],
    ["no report", llm("reported"), resultOf({ text: "" }), "1 calls, 18010 usd_micros"],
    ["half a report", llm("reported"), resultOf({ usage: { input_tokens: 5 } }), "1 calls, 18010 usd_micros"],
    ["a report below zero", llm("reported"), resultOf({ usage: { usd_micros: -5 } }), "1 calls, 18010 usd_micros"],
    ["a report that is a text", llm("reported"), resultOf({ usage: { usd_micros: "0" } }), "1 calls, 18010 usd_micros"],
    [
      "a report that is no JSON",
      llm("reported"),
      { ...resultOf(undefined), stdout: "done" },
      "1 calls, 18010 usd_micros",
    ],
    [
      "tokens past counting",
      llm("reported"),
      resultOf({ usage: { input_tokens: 2 ** 53 - 1, output_tokens: 2 ** 53 - 1 } }),
      "1 calls, 18010 usd_micros",
    ],
  ];
  it.each(cases)("%s", (_name, price, result, expected) => {
    const tool = toolOf(price);
    const json = JSON.stringify(args);
    expect(text(actualOf(tool, json, estimateOf(tool, json), result))).toBe(expected);
  });
});

it("is a whole number at least 0, whatever a tool reports", () => {
  const tool = toolOf({ usd_micros: { per_second: 7, tokens: TOKENS, believe: "reported" } });
  const json = JSON.stringify({ model: "small", prompt: "x" });
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), fc.jsonValue(), (a, b, c) => {
      const result = resultOf({ usage: { usd_micros: a, input_tokens: b, output_tokens: c } });
      for (const { value } of actualOf(tool, json, estimateOf(tool, json), result)) {
        expect(Number.isSafeInteger(value) && value >= 0).toBe(true);
      }
    }),
  );
});

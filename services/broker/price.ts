import type { JsonObject } from "../shared/json.ts";
import type { Manifest } from "../shared/manifest.ts";
import type { Models, PriceRule } from "../shared/price.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import type { Amount, RunResult } from "./model.ts";

/** What a call is expected to cost, and what it did. Pure; amounts are whole units below 2^53. */

export type Priced = { readonly manifest: Pick<Manifest, "price" | "limits" | "egress">; readonly models: Models };

/** The parts of a price that no argument changes: what a list of tools shows. */
export function listedPrice({ manifest }: Priced): Amount[] {
  return amountsOf(manifest.price, (rule) => BigInt(typeof rule === "number" ? rule : rule.fixed));
}

/**
 * What is held for a call before it runs.
 * @throws RpcError INVALID_ARGUMENT MODEL_UNPRICED, PRICE_ARGUMENT_INVALID, or OUT_OF_RANGE PRICE_TOO_LARGE.
 */
export function estimateOf(tool: Priced, argumentsJson: string): Amount[] {
  const { price, limits, egress } = tool.manifest;
  if (Object.values(price).every((rule) => typeof rule === "number")) return listedPrice(tool);
  const args = JSON.parse(argumentsJson) as JsonObject;
  return amountsOf(price, (rule, unit) => {
    if (typeof rule === "number") return BigInt(rule);
    const egressBytes = egress.length === 0 ? 0 : limits.egress_bytes; // without a rule there is no way out
    const by = { wallMs: limits.wall_ms, outputBytes: limits.output_bytes, egressBytes };
    return staticPart(rule, args) + measuredPart(rule, by) + tokensPart(tool, rule, unit, estimatedTokens(rule, args));
  });
}

/**
 * What is charged for a call that has run: by unit what the manifest says is believed. What is believed and is not there,
 * or is no whole number, leaves the estimate.
 */
export function actualOf(
  tool: Priced,
  argumentsJson: string,
  estimate: readonly Amount[],
  result: RunResult | undefined,
): Amount[] {
  if (result === undefined) return [...estimate];
  const report = reportOf(result);
  return estimate.map(({ unit, value }) => {
    const rule = tool.manifest.price[unit];
    if (rule === undefined || typeof rule === "number") {
      return { unit, value: measuredUnit(unit, result.usage) ?? value };
    }
    const actual = actualValue(tool, rule, { unit, argumentsJson, estimate: value, result, report });
    return { unit, value: actual };
  });
}

/** What the runner measures in the unit itself. */
function measuredUnit(unit: string, { cpuMs, egressBytes = 0 }: RunResult["usage"]): number | undefined {
  if (unit === "cpu_ms") return cpuMs;
  return unit === "egress_bytes" ? egressBytes : undefined;
}

type Known = {
  readonly unit: string;
  readonly argumentsJson: string;
  readonly estimate: number;
  readonly result: RunResult;
  readonly report: JsonObject;
};

function actualValue(tool: Priced, rule: PriceRule, known: Known): number {
  const { unit, argumentsJson, estimate, result, report } = known;
  if (rule.believe === "estimate") return estimate;
  if (rule.believe === "reported") {
    const said = report[unit];
    if (isWhole(said)) return said;
  }
  const args = JSON.parse(argumentsJson) as JsonObject;
  const tokens = rule.believe === "reported" ? reportedTokens(rule, args, report) : estimatedTokens(rule, args);
  if (tokens === undefined) return estimate;
  const sum = staticPart(rule, args) + measuredPart(rule, result.usage) + tokensPart(tool, rule, unit, tokens);
  return sum <= MAX ? Number(sum) : estimate;
}

const MAX = BigInt(Number.MAX_SAFE_INTEGER);

/** One call is always counted. */
function amountsOf(price: Manifest["price"], worth: (rule: number | PriceRule, unit: string) => bigint): Amount[] {
  const { calls = 1, ...others } = price;
  return Object.entries({ calls, ...others }).map(([unit, rule]) => {
    const value = worth(rule, unit);
    if (value > MAX) {
      throw new RpcError({
        code: "OUT_OF_RANGE",
        reason: "PRICE_TOO_LARGE",
        message: `These arguments would cost ${value} ${unit}, more than can be counted; send less.`,
      });
    }
    return { unit, value: Number(value) };
  });
}

function staticPart({ fixed, per_argument: perArgument }: PriceRule, args: JsonObject): bigint {
  let sum = BigInt(fixed);
  for (const { argument, units, per } of perArgument) {
    sum += dividedUp(BigInt(numberIn(args, argument, 0)) * BigInt(units), BigInt(per));
  }
  return sum;
}

type Measured = Pick<RunResult["usage"], "wallMs" | "outputBytes" | "egressBytes">;

function measuredPart(rule: PriceRule, { wallMs, outputBytes, egressBytes = 0 }: Measured): bigint {
  const time = dividedUp(BigInt(Math.ceil(wallMs)) * BigInt(rule.per_second), 1_000n);
  const output = dividedUp(BigInt(Math.ceil(outputBytes)) * BigInt(rule.per_kilobyte), 1_024n);
  const { units, per } = rule.per_egress ?? { units: 0, per: 1 };
  return time + output + dividedUp(BigInt(Math.ceil(egressBytes)) * BigInt(units), BigInt(per));
}

type Tokens = { readonly model: string; readonly input: bigint; readonly output: bigint };

const NO_TOKENS: Tokens = { model: "", input: 0n, output: 0n };

function tokensPart({ models }: Priced, rule: PriceRule, unit: string, { model, input, output }: Tokens): bigint {
  if (rule.tokens === undefined) return 0n;
  if (unit === "tokens") return input + output;
  const of = Object.hasOwn(models, model) ? models[model] : undefined;
  if (of === undefined) {
    throw new RpcError({
      code: "INVALID_ARGUMENT",
      reason: "MODEL_UNPRICED",
      field: `arguments.${rule.tokens.model}`,
      message: `Model ${JSON.stringify(model.slice(0, 128))} has no price; use ${Object.keys(models).slice(0, 20).join(", ") || "one that an operator adds to prices.yaml"}.`,
    });
  }
  return dividedUp(input * BigInt(of.input_per_million) + output * BigInt(of.output_per_million), 1_000_000n);
}

function estimatedTokens({ tokens }: PriceRule, args: JsonObject): Tokens {
  if (tokens === undefined) return NO_TOKENS;
  const sent = args[tokens.input];
  const bytes = typeof sent === "number" || sent === undefined ? 0 : Buffer.byteLength(textOf(sent));
  const input = bytes === 0 ? numberIn(args, tokens.input, 0) : Math.ceil(bytes / tokens.bytes_per_token);
  const output = numberIn(args, tokens.output, tokens.output_default);
  return { model: modelIn(args, tokens.model), input: BigInt(input), output: BigInt(output) };
}

/** `input_tokens` and `output_tokens` of the tool's report; undefined when it does not say both. */
function reportedTokens({ tokens }: PriceRule, args: JsonObject, report: JsonObject): Tokens | undefined {
  if (tokens === undefined) return NO_TOKENS;
  const { input_tokens: input, output_tokens: output } = report;
  if (!isWhole(input) || !isWhole(output)) return undefined;
  return { model: modelIn(args, tokens.model), input: BigInt(input), output: BigInt(output) };
}

function modelIn(args: JsonObject, name: string): string {
  const model = args[name];
  return typeof model === "string" ? model : "";
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function numberIn(args: JsonObject, name: string, otherwise: number): number {
  const value = args[name] ?? otherwise;
  if (typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER) return Math.ceil(value);
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "PRICE_ARGUMENT_INVALID",
    field: `arguments.${name}`,
    message: `Change ${name}: the price depends on it, so it has to be a number of at least 0.`,
  });
}

/** The field `usage` of what the tool returned, or printed as one JSON object. */
function reportOf({ resultJson, stdout }: RunResult): JsonObject {
  try {
    const said: unknown = JSON.parse(resultJson === "" ? stdout : resultJson);
    const usage = isObject(said) ? said["usage"] : undefined;
    return isObject(usage) ? usage : {};
  } catch {
    return {}; // what is no JSON reports nothing
  }
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isWhole(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function dividedUp(value: bigint, by: bigint): bigint {
  return (value + by - 1n) / by;
}

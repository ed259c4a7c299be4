import { z } from "zod";

/**
 * What a call of a tool is expected to cost, by unit, in its manifest: a whole number, or a rule. Every part that a rule
 * has is added up, each rounded up to a whole unit.
 */

const WHOLE = "give a whole number of units, at least 0";

/** As text it may have `_` between thousands, for whoever counts the zeros. */
const whole = z.union(
  [
    z.int(WHOLE).min(0, WHOLE),
    z
      .string()
      .regex(/^\d{1,3}(_\d{3}){1,4}$/)
      .transform((text) => Number(text.replaceAll("_", ""))),
  ],
  WHOLE,
);
const argument = z.string().min(1).max(64);

/** What is believed about the actual usage: nothing but the estimate, what the runner measured, what the tool reports. */
export const BELIEVE = ["estimate", "measured", "reported"] as const;

const tokens = z.strictObject({
  model: argument.describe("the argument that names the model, as in prices.yaml"),
  input: argument.describe("the argument that is sent: a text, or a number of tokens"),
  bytes_per_token: z.int().min(1).max(16).default(3).describe("how a text is estimated; 3 errs on the dear side"),
  output: argument.describe("the argument that bounds the answer, in tokens"),
  output_default: whole.describe("the bound where that argument is absent"),
});

export const priceRule = z.strictObject({
  fixed: whole.default(0).describe("for each call"),
  per_argument: z
    .array(
      z.strictObject({
        argument: argument.describe("a number at least 0; absent counts as 0"),
        units: whole.describe("for each `per` of it"),
        per: z.int().min(1).max(1_000_000_000).default(1),
      }),
    )
    .max(8)
    .default([]),
  per_second: whole.default(0).describe("of wall time; estimated by limits.wall_ms"),
  per_kilobyte: whole.default(0).describe("1,024 bytes of output; estimated by limits.output_bytes"),
  per_egress: z
    .strictObject({
      units: whole.describe("for each `per` of them"),
      per: z.int().min(1).max(1_000_000_000).default(1),
    })
    .optional()
    .describe("bytes through the egress proxy, both ways together; estimated by limits.egress_bytes"),
  tokens: tokens.optional().describe("by the price list of models; in the unit `tokens` they are counted themselves"),
  believe: z.enum(BELIEVE).default("measured").describe("reported: the tool's own word; only for tools you trust"),
});

export type PriceRule = z.output<typeof priceRule>;

/** By unit. The ledger refuses a unit that it does not know. */
export const priceSchema = z
  .record(z.string().regex(/^[a-z][a-z0-9_]{0,31}$/, "name a unit, as usd_micros"), z.union([whole, priceRule]))
  .refine(({ calls }) => calls === undefined || (typeof calls === "number" && calls > 0), {
    path: ["calls"],
    error: "give a whole number of at least 1: every call is counted",
  });

/** What a million tokens of each model cost, in usd_micros: `prices.yaml`. */
export const pricesSchema = z.strictObject({
  models: z.record(
    z.string().min(1).max(128),
    z.strictObject({
      input_per_million: whole.describe("usd_micros for a million tokens sent"),
      output_per_million: whole.describe("usd_micros for a million tokens answered"),
    }),
  ),
});

export type Models = z.output<typeof pricesSchema>["models"];

/** Amounts of units. Integers only; nothing here rounds. */

export const UNITS = ["usd_micros", "calls", "cpu_ms", "tokens", "egress_bytes"] as const;
export type Unit = (typeof UNITS)[number];

/** As asked for: its unit may be none of ours. */
export type Amount = { readonly unit: string; readonly value: bigint };

/** The wire's int64. No sum of the ledger passes it. */
export const INT64_MAX = 2n ** 63n - 1n;

export type AmountsRefusal =
  | { readonly kind: "unknown_unit"; readonly unit: string }
  | { readonly kind: "repeated_unit"; readonly unit: string }
  | { readonly kind: "negative_amount"; readonly unit: string; readonly value: bigint }
  | { readonly kind: "overflow"; readonly unit: string };

/** What is wrong with the amounts of a command, if anything; the first of them, in the order of AmountsRefusal. */
export function refuseAmounts(amounts: readonly Amount[]): AmountsRefusal | undefined {
  const unknown = amounts.find(({ unit }) => !isUnit(unit));
  if (unknown !== undefined) return { kind: "unknown_unit", unit: unknown.unit };
  const repeated = amounts.find(({ unit }, i) => amounts.findIndex((other) => other.unit === unit) !== i);
  if (repeated !== undefined) return { kind: "repeated_unit", unit: repeated.unit };
  const negative = amounts.find(({ value }) => value < 0n);
  if (negative !== undefined) return { kind: "negative_amount", ...negative };
  const tooLarge = amounts.find(({ value }) => value > INT64_MAX);
  return tooLarge === undefined ? undefined : { kind: "overflow", unit: tooLarge.unit };
}

export function isUnit(text: string): text is Unit {
  return (UNITS as readonly string[]).includes(text);
}

/** The amount of one unit; what is not mentioned is zero. */
export function valueIn(amounts: readonly Amount[], unit: Unit): bigint {
  return amounts.find((amount) => amount.unit === unit)?.value ?? 0n;
}

/** Equal for equal amounts, in whatever order they came and with or without zeros. */
export function amountsKey(amounts: readonly Amount[]): string {
  return amounts
    .filter(({ value }) => value !== 0n)
    .map(({ unit, value }) => `${unit}=${value}`)
    .sort()
    .join(",");
}

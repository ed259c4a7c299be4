/** Amounts of units. Integers only; nothing here rounds. */

/** Units that need no declaration; a `budgets.yaml` may declare more. */
export const UNITS = ["usd_micros", "calls", "cpu_ms", "tokens", "egress_bytes"] as const;

/** Of a unit of one's own, as gpu_ms. */
export const UNIT_NAME = /^[a-z][a-z0-9_]{0,31}$/;

/** As asked for: its unit may be none of ours. */
export type Amount = { readonly unit: string; readonly value: bigint };

/** The wire's int64. No sum of the ledger passes it. */
export const INT64_MAX = 2n ** 63n - 1n;

export type AmountsRefusal =
  | { readonly kind: "unknown_unit"; readonly unit: string; readonly known: readonly string[] }
  | { readonly kind: "repeated_unit"; readonly unit: string }
  | { readonly kind: "negative_amount"; readonly unit: string; readonly value: bigint }
  | { readonly kind: "overflow"; readonly unit: string };

const BUILT_IN: ReadonlySet<string> = new Set(UNITS);

/** What is wrong with the amounts of a command, if anything; `own` are the tenant's declared units. */
export function refuseAmounts(amounts: readonly Amount[], own: ReadonlySet<string>): AmountsRefusal | undefined {
  for (let i = 0; i < amounts.length; i++) {
    const { unit = "", value = 0n } = amounts[i] ?? {};
    if (!BUILT_IN.has(unit) && !own.has(unit)) return { kind: "unknown_unit", unit, known: [...UNITS, ...own] };
    for (let j = 0; j < i; j++) if (amounts[j]?.unit === unit) return { kind: "repeated_unit", unit };
    if (value < 0n) return { kind: "negative_amount", unit, value };
    if (value > INT64_MAX) return { kind: "overflow", unit };
  }
  return undefined;
}

/** The amount of one unit; what is not mentioned is zero. */
export function valueIn(amounts: readonly Amount[], unit: string): bigint {
  for (const amount of amounts) if (amount.unit === unit) return amount.value;
  return 0n;
}

export function isNothing(amounts: readonly Amount[]): boolean {
  return amounts.every(({ value }) => value === 0n);
}

/** Equal for equal amounts, in whatever order they came and with or without zeros. */
export function amountsKey(amounts: readonly Amount[]): string {
  const [only] = amounts;
  if (amounts.length === 1 && only !== undefined && only.value !== 0n) return `${only.unit}=${only.value}`;
  return amounts
    .filter(({ value }) => value !== 0n)
    .map(({ unit, value }) => `${unit}=${value}`)
    .sort()
    .join(",");
}

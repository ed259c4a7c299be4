/** How amounts are written for people. */

/** At least two decimals, and no digit lost. */
export function money(micros: bigint): string {
  const size = micros < 0n ? -micros : micros;
  const part = (size % 1_000_000n)
    .toString()
    .padStart(6, "0")
    .replace(/0{1,4}$/, "");
  return `${micros < 0n ? "-" : ""}$${size / 1_000_000n}.${part}`;
}

export function amountText({ unit, value }: { readonly unit: string; readonly value: bigint }): string {
  if (unit === "usd_micros") return money(value);
  return `${value} ${unit === "calls" && value === 1n ? "call" : unit}`;
}

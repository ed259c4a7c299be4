/** Reads JSON that we wrote ourselves. What is not as expected throws, so that nothing is ever guessed. */

export function invalid(what: string, found: unknown): Error {
  return new Error(`the ledger's journal does not have ${what} here: ${JSON.stringify(found)?.slice(0, 200)}`);
}

export function object(json: unknown): Readonly<Record<string, unknown>> {
  if (typeof json === "object" && json !== null && !Array.isArray(json)) return json as Record<string, unknown>;
  throw invalid("an object", json);
}

export function field(json: unknown, name: string): unknown {
  return object(json)[name];
}

export function text(json: unknown): string {
  if (typeof json === "string") return json;
  throw invalid("a text", json);
}

export function integer(json: unknown): number {
  if (Number.isSafeInteger(json)) return json as number;
  throw invalid("an integer", json);
}

/** From decimal text, never negative. */
export function bigint(json: unknown): bigint {
  if (typeof json === "string" && DECIMAL.test(json)) return BigInt(json);
  throw invalid("an amount", json);
}
const DECIMAL = /^\d+$/;

export function array<T>(json: unknown, of: (item: unknown) => T): T[] {
  if (!Array.isArray(json)) throw invalid("a list", json);
  const items: T[] = [];
  for (const item of json) items.push(of(item));
  return items;
}

export function optional<T>(json: unknown, of: (value: unknown) => T): T | undefined {
  return json === undefined ? undefined : of(json);
}

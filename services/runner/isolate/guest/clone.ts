import { define, isView, RealDate } from "./host.ts";

// Copies, of what is data.
const clone = (value: unknown, seen: Map<object, unknown>): unknown => {
  if (typeof value === "function" || typeof value === "symbol") throw new TypeError("It cannot be cloned.");
  if (typeof value !== "object" || value === null) return value;
  const known = seen.get(value);
  if (known !== undefined) return known;
  const keep = <T extends object>(copy: T): T => {
    seen.set(value, copy);
    return copy;
  };
  if (value instanceof RealDate) return keep(new RealDate(value.getTime()));
  if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
  if (value instanceof ArrayBuffer) return keep(value.slice(0));
  if (isView(value)) {
    const buffer = clone(value.buffer, seen) as ArrayBuffer;
    const View = value.constructor as new (buffer: ArrayBuffer, at: number, length: number) => object;
    return keep(new View(buffer, value.byteOffset, (value as Uint8Array).length ?? value.byteLength));
  }
  if (value instanceof Map) {
    const copy = keep(new Map());
    for (const [key, item] of value) copy.set(clone(key, seen), clone(item, seen));
    return copy;
  }
  if (value instanceof Set) {
    const copy = keep(new Set());
    for (const item of value) copy.add(clone(item, seen));
    return copy;
  }
  const copy = keep(value instanceof Error ? new Error(value.message) : Array.isArray(value) ? [] : {});
  for (const key of Object.keys(value)) {
    (copy as Record<string, unknown>)[key] = clone((value as Record<string, unknown>)[key], seen);
  }
  return copy;
};
define("structuredClone", (value: unknown) => clone(value, new Map()));

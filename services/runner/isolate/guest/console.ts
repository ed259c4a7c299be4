import { define, freeze, outside, stringify } from "./host.ts";

export const show = (value: unknown): string => {
  if (typeof value === "string") return value;
  if (value instanceof Error) return value.stack || `${value.name}: ${value.message}`;
  if (typeof value === "object" && value !== null) {
    try {
      return stringify(value) ?? String(value);
    } catch {
      return String(value);
    }
  }
  return String(value);
};
const print =
  (stream: string) =>
  (...items: unknown[]): void => {
    let line = "";
    for (let i = 0; i < items.length; i++) line += (i === 0 ? "" : " ") + show(items[i]);
    outside().log(stream, `${line}\n`);
  };
const out = print("stdout");
export const err = print("stderr");
export const console = freeze({ log: out, info: out, debug: out, warn: err, error: err });
define("console", console);

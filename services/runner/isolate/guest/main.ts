import { deliver, toolAt } from "./calls.ts";
import { console, show } from "./console.ts";
import { fetch } from "./fetch.ts";
import {
  bytesOf,
  connect,
  define,
  deleteProperty,
  demand,
  type Host,
  isView,
  parse,
  setPrototypeOf,
  stringify,
  toText,
} from "./host.ts";
import { tick } from "./timers.ts";

type Program = (input: unknown, console: object) => unknown;

const place = (stack: unknown): string => {
  const line = String(stack)
    .split("\n")
    .find((each) => each.includes("program.js:"));
  return line === undefined ? "" : ` (${line.slice(line.indexOf("program.js:")).replace(")", "")})`;
};
const describe = (thrown: unknown): string => {
  if (thrown instanceof Error) return `${thrown.name}: ${thrown.message}${place(thrown.stack)}`;
  return `The program threw something that is no Error: ${show(thrown)}`;
};
const run = async (program: Program, input: string, mayCall: boolean, mayFetch: boolean): Promise<string> => {
  if (mayCall) define("tools", toolAt(""));
  if (mayFetch) define("fetch", fetch);
  let value: unknown;
  try {
    value = await program(parse(input), console);
  } catch (thrown) {
    return `e${describe(thrown)}`;
  }
  if (value === undefined) return "u";
  let json: string | undefined;
  try {
    const bytes = isView(value) || value instanceof ArrayBuffer;
    json = stringify(bytes ? { base64: demand("base64.encode", toText(bytesOf(value))) } : value);
  } catch (thrown) {
    return `eThe result cannot be written as JSON: ${describe(thrown)}`;
  }
  if (json === undefined) return `eThe result cannot be written as JSON: it is a ${typeof value}.`;
  return `r${json}`;
};
setPrototypeOf(run, null);

/** Readies the isolate for its one program. */
export function boot(
  log: Host["log"],
  ask: Host["ask"],
  wake: Host["wake"],
  now: Host["now"],
  fetchOutside: Host["fetch"],
) {
  // Nothing here shares memory with anything, or may stop to wait for it. A snapshot cannot be without them.
  for (const name of ["$boot", "SharedArrayBuffer", "Atomics"]) deleteProperty(globalThis, name);
  connect({ log, ask, wake, now, fetch: fetchOutside });
  return { run, deliver, tick };
}

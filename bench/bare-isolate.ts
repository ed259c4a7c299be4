import ivm from "isolated-vm";
import { measure } from "./load.ts";

/**
 * The baseline of the isolate suite, in a process of its own: isolated-vm as its documentation uses it. A new isolate,
 * a context, one program, dispose. Started with the program, concurrency and duration; prints one Load as JSON.
 */
const [program = "", concurrency = "1", durationMs = "1000"] = process.argv.slice(2);

async function once(): Promise<void> {
  const isolate = new ivm.Isolate({ memoryLimit: 128 });
  const context = await isolate.createContext();
  const script = await isolate.compileScript(`(async (input) => {${program}})([1,2,3]).then(JSON.stringify)`);
  const result: unknown = await script.run(context, { timeout: 1000, promise: true });
  isolate.dispose();
  if (result !== "[1,4,9]") throw new Error(`the program gave ${String(result)}`);
}

const load = await measure(once, {
  concurrency: Number(concurrency),
  durationMs: Number(durationMs),
  warmUpMs: 300,
});
console.log(JSON.stringify(load));

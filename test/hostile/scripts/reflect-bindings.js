/*
tries: "reflecting on the bindings for anything of the host: names, keys, prototypes"
ends: [exited]
result: undefined
*/
const seen = new Set();
const walk = (value) => { if ((typeof value !== "object" && typeof value !== "function") || value === null || seen.has(value)) return; seen.add(value); walk(Object.getPrototypeOf(value)); for (const key of Reflect.ownKeys(value)) { const d = Reflect.getOwnPropertyDescriptor(value, key); walk(d?.value); walk(d?.get); walk(d?.set); } };
walk(globalThis); walk(console); walk(input);
for (const value of seen) { const F = typeof value === "function" && value.constructor; if (F && F.name === "Function" && F !== Function) return "another realm"; }
return undefined ?? "undefined";

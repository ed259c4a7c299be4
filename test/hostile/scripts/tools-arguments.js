/*
tries: "arguments that are no JSON object: cycles, functions, getters that throw"
ends: [exited]
result: 3
calls: [test.echo]
*/
const cycle = {}; cycle.a = cycle;
let failed = 0;
for (const bad of [cycle, () => 1, { get a() { throw new Error("no"); } }]) await tools.test.echo(bad).catch(() => failed++);
return failed;

/*
tries: names of tools made of anything
ends: [exited]
result: 6
calls: [test.echo]
*/
const names = ["__proto__", "constructor", "../../x", "a\u0000b", "x".repeat(500), "toString"];
let failed = 0;
for (const name of names) await tools[name]({}).catch(() => failed++);
return failed;

/*
tries: Symbol.toPrimitive of an argument, run while a binding validates it
ends: [exited]
result: undefined
*/
let seen = "never";
const trap = { [Symbol.toPrimitive]() { seen = typeof process; return "https://a.b/"; } };
new URL(trap);
return seen;

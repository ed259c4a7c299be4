/*
tries: the constructors of generator and async functions
ends: [exited]
result: [undefined, undefined, undefined]
*/
const make = (f) => Object.getPrototypeOf(f).constructor;
const g = make(function* () {})("return typeof process")().next().value;
const a = await make(async () => {})("return typeof process")();
const ag = (await make(async function* () {})("yield typeof process")().next()).value;
return [g, a, ag];

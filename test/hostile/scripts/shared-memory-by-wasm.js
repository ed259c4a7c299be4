/*
tries: shared memory, from WebAssembly where that is granted
ends: [exited]
result: undefined
jit: true
*/
const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
return typeof Atomics;

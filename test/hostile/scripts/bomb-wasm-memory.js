/*
tries: WebAssembly memory that grows, where it is granted
ends: [oom, exited]
limits: {cpuMs: 10000}
jit: true
*/
const memory = new WebAssembly.Memory({ initial: 1 });
for (;;) { memory.grow(1000); new Uint8Array(memory.buffer).fill(1); }

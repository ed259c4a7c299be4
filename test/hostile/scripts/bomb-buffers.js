/*
tries: many buffers
ends: [oom, exited]
limits: {cpuMs: 10000}
*/
const all = [];
for (;;) all.push(new Uint8Array(1e7).fill(1));

/*
tries: strings that are really there
ends: [oom, exited]
limits: {cpuMs: 10000}
*/
const all = [];
for (;;) all.push("x".repeat(1e7).split("").join("y"));

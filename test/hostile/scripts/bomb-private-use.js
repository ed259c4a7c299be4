/*
tries: properties without end on one object
ends: [oom, cpu]
limits: {cpuMs: 2000}
*/
const a = {};
for (let i = 0; ; i++) a["k" + i] = i;

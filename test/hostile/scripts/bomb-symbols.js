/*
tries: symbols without end
ends: [oom, cpu]
limits: {cpuMs: 2000}
*/
const all = [];
for (let i = 0; ; i++) all.push(Symbol.for("s" + i));

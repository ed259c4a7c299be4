/*
tries: arrays of arrays
ends: [oom]
limits: {cpuMs: 10000}
*/
let all = [];
for (;;) all = [all, all.slice(), new Array(1e5).fill(all)];

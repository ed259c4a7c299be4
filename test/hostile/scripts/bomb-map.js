/*
tries: a Map that grows
ends: [oom]
limit: [heap_bytes, off_heap_bytes]
limits: {cpuMs: 10000}
*/
const map = new Map();
for (let i = 0; ; i++) map.set(i, String(i).repeat(100));

/*
tries: "a buffer that grows past V8's own limit"
ends: [oom]
limit: [off_heap_bytes, heap_bytes]
limits: {cpuMs: 10000}
*/
const buffer = new ArrayBuffer(1, { maxByteLength: 3e8 });
buffer.resize(3e8);
for (;;) new Uint8Array(buffer).fill(1);

/*
tries: a buffer of gigabytes
ends: [oom, exited]
*/
new Uint8Array(new ArrayBuffer(1, { maxByteLength: 4e9 })).buffer.resize(3e9);

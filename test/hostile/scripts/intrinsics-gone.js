/*
tries: shared memory and blocking waits
ends: [exited]
result: [undefined, undefined, undefined]
*/
return [typeof SharedArrayBuffer, typeof Atomics, typeof WebAssembly];

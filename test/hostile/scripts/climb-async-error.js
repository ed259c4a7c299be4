/*
tries: an error that rejects a promise of the host, to take its constructor
ends: [exited]
result: undefined
*/
try { await crypto.subtle.digest("MD5", new Uint8Array(1)); } catch (error) { return error.constructor.constructor("return typeof process")(); }

/*
tries: random bytes beyond what one call may ask
ends: [exited]
error: At most 65536
*/
return crypto.getRandomValues(new Uint8Array(1e6)).length;

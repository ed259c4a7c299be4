/*
tries: decoding and hashing what is large
ends: [exited, oom, limit]
*/
const bytes = new Uint8Array(8e6);
await crypto.subtle.digest("SHA-512", bytes);
return new TextDecoder().decode(bytes).length;

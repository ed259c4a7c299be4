/*
tries: leaving the function that wraps a program, to run outside it
ends: [exited]
*/
}), (globalThis.escaped = typeof process), (async function () { return globalThis.escaped;

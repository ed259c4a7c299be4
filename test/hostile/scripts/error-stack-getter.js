/*
tries: an error whose stack never ends when read
ends: [cpu]
*/
const error = new Error("x");
Object.defineProperty(error, "stack", { get() { for (;;); } });
throw error;

/*
tries: an error whose message never ends when read
ends: [cpu]
*/
const error = new Error();
Object.defineProperty(error, "message", { get() { for (;;); } });
throw error;

/*
tries: preparing stack traces for ever
ends: [cpu]
*/
Error.prepareStackTrace = () => { for (;;); };
throw new Error("x");

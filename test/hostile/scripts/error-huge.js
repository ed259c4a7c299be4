/*
tries: an error message of many megabytes
ends: [exited]
*/
throw new Error("x".repeat(5e6));

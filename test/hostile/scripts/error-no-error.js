/*
tries: throwing what is no error
ends: [exited]
error: no Error
*/
throw { a: 1 };

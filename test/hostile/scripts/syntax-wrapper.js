/*
tries: ending the wrapper with a syntax error in mind
ends: [exited]
error: SyntaxError
*/
}) ; for (

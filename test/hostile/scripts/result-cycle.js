/*
tries: a result that holds itself
ends: [exited]
error: cannot be written as JSON
*/
const a = {}; a.a = a;
return a;

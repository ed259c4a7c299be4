/*
tries: "a result that is no JSON: a symbol"
ends: [exited]
error: cannot be written as JSON
*/
return Symbol("x");

/*
tries: "a result that is no JSON: a large integer"
ends: [exited]
error: cannot be written as JSON
*/
return 1n;

/*
tries: "a result that is no JSON: a function"
ends: [exited]
error: cannot be written as JSON
*/
return () => 1;

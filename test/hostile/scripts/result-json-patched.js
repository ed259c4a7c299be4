/*
tries: replacing JSON.stringify and JSON.parse
ends: [exited]
result: 1
*/
JSON.stringify = () => "}{";
JSON.parse = () => { throw 1; };
return 1;

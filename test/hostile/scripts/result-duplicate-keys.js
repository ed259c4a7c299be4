/*
tries: JSON that means two things, made by hand
ends: [exited]
error: The result is no JSON
*/
String.prototype.constructor;
JSON.rawJSON ? 0 : 0;
return { a: JSON.rawJSON("9007199254740993") };

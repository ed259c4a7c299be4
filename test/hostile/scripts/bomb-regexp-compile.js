/*
tries: a regular expression that is large to compile
ends: [exited, cpu, oom]
*/
return new RegExp("(?:a{1000}){1000}".repeat(10)).test("a");

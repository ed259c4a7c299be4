/*
tries: a regular expression that backtracks
ends: [cpu]
*/
return /^(a+)+$/.test("a".repeat(40) + "!");

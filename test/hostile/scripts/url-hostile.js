/*
tries: addresses that break parsers
ends: [exited]
result: 4
*/
const bad = ["http://a b/", "http://[::1", "http://\u0000/", "//"];
return bad.filter((href) => !URL.canParse(href)).length;

/*
tries: a getter on the result that looks for the host while it is read
ends: [exited]
result: {a: undefined}
*/
return { get a() { return typeof process; } };

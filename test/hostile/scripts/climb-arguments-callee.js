/*
tries: walking the callers up to the function that starts programs
ends: [exited]
error: "TypeError"
*/
return (function f() { return f.caller.caller; })();

/*
tries: source nested so deep that parsing it overflows
ends: [exited]
*/
return eval("(".repeat(2e5) + ")".repeat(2e5));

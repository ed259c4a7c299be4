/*
tries: recursion without end
ends: [exited]
error: call stack
*/
const dive = () => dive() + 1;
return dive();

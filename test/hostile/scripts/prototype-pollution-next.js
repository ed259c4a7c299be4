/*
tries: polluting prototypes for whoever comes next
ends: [exited]
result: 1
*/
Object.prototype.polluted = true; Array.prototype.push = () => { throw new Error("polluted"); };
return 1;

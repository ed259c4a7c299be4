/*
tries: printing what JSON writes longest
ends: [exited]
*/
for (let i = 0; i < 6; i++) console.log("\0".repeat(1e6));

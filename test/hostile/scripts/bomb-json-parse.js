/*
tries: JSON nested a million deep, to parse
ends: [exited, cpu, oom]
*/
return JSON.parse("[".repeat(1e6) + "]".repeat(1e6)).length;

/*
tries: an array of a thousand million
ends: [oom, cpu, exited]
*/
return Array(1e9).fill(0).length;

/*
tries: squaring an integer
ends: [oom, cpu, exited]
*/
let n = 3n;
for (;;) n *= n;

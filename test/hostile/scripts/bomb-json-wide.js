/*
tries: JSON that multiplies shared objects
ends: [oom, exited, cpu, limit]
*/
let a = ["x".repeat(100)];
for (let i = 0; i < 40; i++) a = [a, a];
return JSON.stringify(a).length;

/*
tries: cloning what holds itself, and what is deep
ends: [exited, cpu, oom]
*/
const a = {}; a.a = a;
if (structuredClone(a).a.a.a === undefined) return "wrong";
let deep = {};
for (let i = 0; i < 1e6; i++) deep = { deep };
return typeof structuredClone(deep);

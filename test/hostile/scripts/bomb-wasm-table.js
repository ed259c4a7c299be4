/*
tries: WebAssembly tables, where they are granted
ends: [oom, exited, cpu]
jit: true
*/
const all = [];
for (;;) all.push(new WebAssembly.Table({ initial: 1e6, element: "anyfunc" }));

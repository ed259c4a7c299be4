/*
tries: a string that doubles
ends: [oom, exited]
limits: {cpuMs: 10000}
*/
let text = "x";
for (;;) text += text;

/*
tries: a loop without end
ends: [cpu]
limit: [cpu_ms]
*/
for (;;);

/*
tries: calling a binding for ever
ends: [limit]
limit: [binding_calls]
limits: {cpuMs: 20000}
*/
for (;;) atob("");

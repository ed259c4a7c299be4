/*
tries: printing for ever
ends: [cpu, limit]
*/
for (;;) console.log("x".repeat(1000));

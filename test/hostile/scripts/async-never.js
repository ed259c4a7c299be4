/*
tries: a promise that is never settled
ends: [timeout]
limit: [wall_ms]
limits: {wallMs: 700}
*/
await new Promise(() => {});

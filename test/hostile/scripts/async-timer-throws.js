/*
tries: a timer that throws, over and over
ends: [timeout]
limits: {wallMs: 700}
*/
setInterval(() => { throw new Error("again"); }, 1);
await new Promise(() => {});

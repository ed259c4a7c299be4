/*
tries: a million timers
ends: [exited]
error: At most 1000 timers
*/
for (let i = 0; i < 1e6; i++) setTimeout(() => {}, 1e6);

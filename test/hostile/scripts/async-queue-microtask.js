/*
tries: queueMicrotask that queues itself
ends: [cpu, oom]
*/
const again = () => queueMicrotask(again);
again();
await new Promise(() => {});

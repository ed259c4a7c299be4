/*
tries: microtasks without end
ends: [cpu, oom]
*/
const again = () => Promise.resolve().then(again);
await again();

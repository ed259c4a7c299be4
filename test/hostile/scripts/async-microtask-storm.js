/*
tries: a million microtasks that each make two
ends: [cpu, oom]
*/
const grow = async () => { await null; grow(); grow(); };
await grow(); await new Promise(() => {});

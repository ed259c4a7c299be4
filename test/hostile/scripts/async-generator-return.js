/*
tries: an async generator that never returns
ends: [timeout]
limits: {wallMs: 700}
*/
async function* forever() { try { yield 1; } finally { await new Promise(() => {}); } }
for await (const _ of forever()) break;

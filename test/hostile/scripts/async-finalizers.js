/*
tries: code that runs when garbage is collected, after the end
ends: [exited]
result: 1
*/
const registry = new FinalizationRegistry(() => { for (;;); });
for (let i = 0; i < 1000; i++) registry.register({}, i);
return 1;

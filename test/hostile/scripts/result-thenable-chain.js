/*
tries: a thenable that resolves to itself for ever
ends: [cpu, oom]
*/
const again = { then(resolve) { resolve({ then: again.then }); } };
return again;

/*
tries: getting the function that readies isolates, and its bindings
ends: [exited]
result: [undefined, false]
*/
return [typeof globalThis.$boot, Reflect.ownKeys(globalThis).some((key) => /boot|host|ivm/i.test(String(key)))];

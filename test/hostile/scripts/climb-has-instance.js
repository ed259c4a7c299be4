/*
tries: "Symbol.hasInstance on the library's own classes"
ends: [exited]
*/
for (const C of [Error, ArrayBuffer, Map, Set, Date, RegExp]) { try { Object.defineProperty(C, Symbol.hasInstance, { value: () => true }); } catch {} }
console.log({ a: 1 });
return 1;

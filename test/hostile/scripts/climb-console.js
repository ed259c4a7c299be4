/*
tries: "reaching the host through a function that the host gave: console.log"
ends: [exited]
result: [undefined, undefined]
*/
const F = console.log.constructor;
return [F("return typeof process")(), F("return typeof require")()];

/*
tries: Symbol.species of what a binding makes, to be handed an array of the host
ends: [exited]
result: true
*/
class Mine extends Uint8Array { static get [Symbol.species]() { return Array; } }
const bytes = crypto.getRandomValues(new Mine(8));
return bytes instanceof Mine && bytes.constructor.constructor("return typeof process")() === "undefined";

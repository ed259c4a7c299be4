/*
tries: reaching the host through the constructor of this
ends: [exited]
result: undefined
*/
return typeof this?.constructor?.constructor("return typeof process")?.() === "string" ? this.constructor.constructor("return typeof process")() : "undefined";

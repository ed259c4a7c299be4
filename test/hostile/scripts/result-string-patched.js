/*
tries: replacing what the library uses on strings
ends: [exited]
*/
String.prototype.slice = String.prototype.split = () => { throw new Error("patched"); };
String.prototype[Symbol.iterator] = null;
return "x";

/*
tries: an error thrown by the host side of a binding, to take its constructor
ends: [exited]
result: undefined
*/
try { new URL("no address"); } catch (error) { return error.constructor.constructor("return typeof process")(); }

/*
tries: the resolve function that await gives a thenable, to take its constructor
ends: [exited]
result: undefined
*/
return { then(resolve) { resolve(resolve.constructor("return typeof process")()); } };

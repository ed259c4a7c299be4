/*
tries: reaching the host through the prototypes of the input, which came from outside
ends: [exited]
result: undefined
*/
return input.constructor.constructor("return typeof process")();

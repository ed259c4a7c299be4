/*
tries: "turning the tools object inside out: prototype, definition, then"
ends: [exited]
result: [null, false, undefined]
calls: [test.echo]
*/
return [Object.getPrototypeOf(tools), Reflect.defineProperty(tools, "x", { value: 1 }), typeof tools.then];

/*
tries: an overflow of the stack inside a binding, to catch an error of the host
ends: [exited]
result: undefined
*/
let caught;
const dive = () => { try { dive(); } catch (error) { caught ??= error; try { new URL("https://a.b"); } catch (inner) { caught = inner; } } };
dive();
return caught.constructor.constructor("return typeof process")();

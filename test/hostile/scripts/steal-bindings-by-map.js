/*
tries: what waits for an answer, by replacing Map.prototype.set
ends: [exited]
result: function
calls: [test.echo]
*/
let kept;
const set = Map.prototype.set;
Map.prototype.set = function (key, value) { kept = value; return Reflect.apply(set, this, [key, value]); };
await tools.test.echo({});
return typeof kept?.resolve;

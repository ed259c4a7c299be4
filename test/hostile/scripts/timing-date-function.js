/*
tries: "a fine clock by the old ways: Date(), Date.prototype.constructor"
ends: [exited]
result: 0
*/
const D = Date.prototype.constructor;
return [D.now(), new D().getTime(), new (class extends Date {})().getTime()].filter((ms) => ms % 10 !== 0).length;

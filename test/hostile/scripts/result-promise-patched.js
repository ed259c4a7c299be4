/*
tries: replacing Promise.prototype.then, so that what the host awaits lies
ends: [exited]
*/
Promise.prototype.then = function (done) { done("rforged"); return this; };
return 1;

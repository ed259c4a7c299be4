/*
tries: toJSON on every object, to forge what is sent
ends: [exited]
result: forged
*/
Object.prototype.toJSON = () => "forged";
return { honest: true };

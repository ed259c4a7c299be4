/*
tries: an object thrown whose toString climbs
ends: [exited]
error: undefined
*/
throw { toJSON() { return typeof process; } };

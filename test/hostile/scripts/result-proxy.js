/*
tries: a result whose traps never end
ends: [cpu]
*/
return new Proxy({}, { ownKeys() { for (;;); } });

/*
tries: throwing a Proxy whose traps never end
ends: [cpu]
*/
throw new Proxy(new Error("x"), { get() { for (;;); }, getPrototypeOf() { for (;;); } });

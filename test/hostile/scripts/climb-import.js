/*
tries: importing a module of Node
ends: [exited]
error: Not supported
*/
return await import("node:fs");

/*
tries: making a request where no host is granted, by the name and by what its library keeps
ends: [exited]
result: ["undefined", "undefined"]
*/
return [typeof fetch, typeof Function("return this.fetch")()];

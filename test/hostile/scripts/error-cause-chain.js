/*
tries: causes, a hundred thousand deep
ends: [exited]
*/
let error = new Error("first");
for (let i = 0; i < 1e5; i++) error = new Error("next", { cause: error });
throw error;

/*
tries: importing from inside eval and new Function
ends: [exited]
result: [failed, failed]
*/
const tries = [() => eval("import('node:child_process')"), () => new Function("return import('node:child_process')")()];
return await Promise.all(tries.map((attempt) => Promise.resolve().then(attempt).then(() => "got it", () => "failed")));

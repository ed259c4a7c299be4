/*
tries: returning while calls are under way
ends: [exited]
result: 1
calls: [test.echo]
*/
for (let i = 0; i < 8; i++) tools.test.echo({ i }).catch(() => {});
return 1;

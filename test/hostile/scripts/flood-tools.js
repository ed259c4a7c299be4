/*
tries: calling a tool more often than it may
ends: [limit]
limit: [tool_calls]
calls: [test.echo]
*/
for (;;) await tools.test.echo({});

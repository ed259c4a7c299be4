/*
tries: a storm of calls at once
ends: [limit]
limit: [tool_calls]
calls: [test.echo]
*/
await Promise.all(Array.from({ length: 10000 }, (_, i) => tools.test.echo({ i })));

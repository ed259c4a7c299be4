/*
tries: calling tools where none are granted
ends: [exited]
error: tools is not defined
*/
return await tools.test.echo({});

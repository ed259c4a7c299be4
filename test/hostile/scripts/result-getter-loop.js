/*
tries: a result with a getter that never returns
ends: [cpu]
*/
return { get a() { for (;;); } };

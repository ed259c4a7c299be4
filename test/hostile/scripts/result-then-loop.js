/*
tries: a thenable whose then never returns
ends: [cpu]
*/
return { then() { for (;;); } };

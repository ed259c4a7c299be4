/*
tries: an unhandled rejection whose stack never ends
ends: [exited, cpu]
*/
Promise.reject({ get stack() { for (;;); }, get message() { for (;;); } });
return 1;

/*
tries: a result of 1 GiB
ends: [limit, oom, exited]
*/
return "x".repeat(2 ** 29 - 24) + "y";

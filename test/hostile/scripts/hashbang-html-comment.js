/*
tries: comments of the web, to swallow what follows
ends: [exited]
*/
return 1 <!-- the rest
--> gone

/*
tries: an interval that outlives the program
ends: [exited, cpu]
*/
setInterval(() => { for (;;); }, 1);
return 1;

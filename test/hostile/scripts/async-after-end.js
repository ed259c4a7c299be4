/*
tries: printing and asking after the program has returned
ends: [exited]
result: 1
stdout: ""
*/
setTimeout(() => console.log("late"), 5);
return 1;

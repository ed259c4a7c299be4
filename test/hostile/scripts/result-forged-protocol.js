/*
tries: answering in the words of the protocol between isolate and worker
ends: [exited]
result: "r\"forged\""
*/
return "r\"forged\"";

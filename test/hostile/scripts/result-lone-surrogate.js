/*
tries: "text that is no text: half a surrogate"
ends: [exited]
*/
return "\ud800";

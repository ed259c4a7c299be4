/*
tries: a result one hundred times the limit
ends: [limit]
limit: [output_bytes]
*/
return "x".repeat(1e6);

/*
tries: making requests without end, without waiting for one
ends: [limit, cpu]
limit: [tool_calls, cpu_ms]
egress: ["files.example.com:80"]
*/
for (;;) fetch("http://other.example.com/").catch(() => {});

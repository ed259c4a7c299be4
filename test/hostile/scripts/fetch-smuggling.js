/*
tries: writing a second request, another host or another method into a request
ends: [exited]
egress: ["GET files.example.com:80/only"]
result: 0
*/
const url = "http://files.example.com/only";
const tries = [
  { headers: { "x-a": "1\r\n\r\nGET /admin HTTP/1.1" } }, { headers: { "x-a\r\nhost": "1" } }, { headers: { host: "inner" } },
  { headers: { "Transfer-Encoding": "chunked" }, method: "POST", body: "0\r\n\r\nGET / HTTP/1.1\r\n\r\n" },
  { headers: { "content-length": "0" } }, { headers: { connection: "upgrade", upgrade: "h2c" } }, { headers: { "proxy-authorization": "x" } },
  { method: "CONNECT" }, { method: "GET /admin HTTP/1.1\r\nx:" }, { method: "POST", body: "x" },
];
const got = await Promise.allSettled(tries.map((how) => fetch(url, how)));
return got.filter(({ status, reason }) => status !== "rejected" || (reason.reason !== "REQUEST_INVALID" && reason.reason !== "METHOD_NOT_ALLOWED")).map(({ reason }) => String(reason?.message)).length;

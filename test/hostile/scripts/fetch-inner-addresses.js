/*
tries: reaching this machine and its network by addresses, in every spelling, where one name is granted
ends: [exited]
egress: ["files.example.com:80"]
result: ["HOST_INVALID", "HOST_INVALID", "HOST_INVALID", "HOST_INVALID", "HOST_INVALID", "NO_RULE", "REQUEST_INVALID", "REQUEST_INVALID"]
*/
const to = ["127.0.0.1", "[::1]", "2130706433", "0x7f.1", "169.254.169.254", "localhost", "files.example.com@127.0.0.1", "files.example.com:80@[::ffff:7f00:1]"];
return await Promise.all(to.map((host) => fetch(`http://${host}/`).then(() => "reached", (error) => error.reason)));

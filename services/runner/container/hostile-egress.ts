import { expect } from "vitest";
import { allRefused, type Hostile, refused, tries } from "./hostile-kit.ts";
import { type Program, python, shell } from "./test-engine.ts";

/** What hostile code tries to get out, past the proxy or through it. */

const RULES = [
  "api.example.com:80",
  "GET files.example.com:443/v1/*",
  "inner.example.com:80",
  "metadata.example.com:80",
];
const DENIED = (reason: string): object => ({ end: "exited", stdout: expect.stringContaining(reason) });
const curl = (args: string): Program => shell(`curl -sS -i --max-time 5 ${args} 2>&1`, { egress: RULES });
const raw = (bytes: string): Program =>
  python(
    `import socket\ns = socket.create_connection(('127.0.0.1', 3128)); s.settimeout(5); s.sendall(${bytes})\nwhile True:\n  b = s.recv(4096)\n  if not b: break\n  print(b.decode('latin1'))`,
    { egress: RULES },
  );

export const EGRESS: readonly Hostile[] = [
  {
    name: "out by address, with nothing granted",
    program: tries(
      "tell(*[attempt(lambda a=a: socket.create_connection(a, 2)) for a in (('1.1.1.1', 80), ('169.254.169.254', 80))])",
    ),
    must: allRefused,
  },
  {
    name: "out by IPv6, with nothing granted",
    program: tries("tell(attempt(lambda: socket.create_connection(('2606:4700:4700::1111', 80), 2)))"),
    must: refused,
  },
  {
    name: "out by name service, with nothing granted",
    program: tries("s = socket.socket(2, 2); s.settimeout(1)\ntell(attempt(lambda: s.sendto(b'x', ('8.8.8.8', 53))))"),
    must: refused,
  },
  {
    name: "out past the proxy, with something granted",
    program: { ...tries("tell(attempt(lambda: socket.create_connection(('1.1.1.1', 443), 2)))"), egress: RULES },
    must: refused,
  },
  { name: "an address through the proxy", program: curl("http://1.1.1.1/"), must: DENIED("HOST_INVALID") },
  {
    name: "an IPv6 address through the proxy",
    program: curl("-g 'http://[::ffff:127.0.0.1]/'"),
    must: DENIED("HOST_INVALID"),
  },
  {
    name: "the metadata address through the proxy",
    program: curl("http://169.254.169.254/latest/"),
    must: DENIED("HOST_INVALID"),
  },
  {
    name: "a name of the metadata address",
    program: curl("http://metadata.example.com/latest/"),
    must: DENIED("ADDRESS_NOT_PUBLIC"),
  },
  {
    name: "a name that was rebound to an inner address",
    program: curl("http://inner.example.com/"),
    must: DENIED("ADDRESS_NOT_PUBLIC"),
  },
  {
    name: "a redirect to what is not granted",
    program: curl("-L 'http://api.example.com/redirect?to=http://other.example.com/'"),
    must: DENIED("other.example.com:80"),
  },
  {
    name: "another Host header",
    program: curl("-H 'Host: other.example.com' http://api.example.com/"),
    must: DENIED("HOST_HEADER_MISMATCH"),
  },
  {
    name: "a path that climbs",
    program: curl("--path-as-is https://files.example.com/v1/../v2"),
    must: DENIED("PATH_AMBIGUOUS"),
  },
  {
    name: "a tunnel to another server name",
    program: shell(
      "openssl s_client -proxy 127.0.0.1:3128 -connect files.example.com:443 -servername other.example.com </dev/null 2>&1 | grep -c 'alert'",
      { egress: RULES },
    ),
    must: { end: "exited", stdout: expect.stringMatching(/^[1-9]/) },
  },
  {
    name: "a tunnel of what is no TLS",
    program: raw("b'CONNECT files.example.com:443 HTTP/1.1\\r\\n\\r\\nGET / HTTP/1.1\\r\\n\\r\\n'"),
    must: { stdout: expect.stringMatching(/200[\s\S]*\x15\x03\x01/) },
  },
  {
    name: "a request smuggled by two lengths",
    program: raw(
      "b'POST http://api.example.com/ HTTP/1.1\\r\\nHost: api.example.com\\r\\nContent-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n0\\r\\n\\r\\nGET /smuggled HTTP/1.1\\r\\n\\r\\n'",
    ),
    must: DENIED("REQUEST_INVALID"),
  },
  {
    name: "its socket, replaced",
    program: shell(
      "rm -f /run/interlock/egress.sock; ln -s /tmp/x /run/interlock/egress.sock 2>/dev/null; curl -sS http://api.example.com/",
      { egress: RULES },
    ),
    must: { end: "exited", stdout: "api.example.com GET /" },
  },
];

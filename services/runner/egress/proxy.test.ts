import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parseEgressRules } from "../../shared/egress.ts";
import { MASKED } from "../../shared/mask.ts";
import type { Credential } from "./credentials.ts";
import { client, type Door, openDoor, openWorld, speak, type World } from "./test-world.ts";

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world[Symbol.asyncDispose]());

const OPEN = ["api.example.com:443", "api.example.com:80"];
const curl = (door: Door, ...args: string[]) =>
  client(door, "curl", ["--silent", "--show-error", "--max-time", "10", ...args]);
const records = (door: Door) => door.proxy.records.list().records;

describe("what is granted goes through", () => {
  test("plain HTTP, and its record says by which rule", async () => {
    await using door = await openDoor(world, OPEN);
    const { stdout } = await curl(door, "http://api.example.com/a?secret=1", "-d", "hello");
    expect(stdout).toBe("api.example.com POST /a?secret=1");
    expect(records(door)).toEqual([
      expect.objectContaining({
        kind: "http",
        host: "api.example.com",
        port: 80,
        method: "POST",
        path: "/a",
        status: 200,
        bytesSent: 5,
        refused: "",
      }),
    ]);
    expect(records(door)[0]?.rule).toBe("api.example.com:80");
  });

  test("TLS, unread, when its rule is open", async () => {
    await using door = await openDoor(world, OPEN);
    const { stdout, stderr } = await curl(door, "https://api.example.com/a");
    expect({ stdout, stderr }).toEqual({ stdout: "api.example.com GET /a", stderr: "" });
    expect(records(door)).toMatchObject([{ kind: "connect", path: "", status: 0, refused: "" }]);
  });

  test("TLS, read request by request, when its rule names methods or a path", async () => {
    await using door = await openDoor(world, ["GET api.example.com:443/v1/*"]);
    expect((await curl(door, "https://api.example.com/v1/a")).stdout).toBe("api.example.com GET /v1/a");
    const other = await curl(door, "https://api.example.com/v2/a", "-i");
    expect(other.stdout).toContain("PATH_NOT_ALLOWED");
    expect(other.stdout).toContain('"missing_rule":"GET api.example.com:443/v2/a"');
    expect(records(door).map(({ kind, refused }) => [kind, refused])).toEqual([
      ["connect", ""],
      ["http", ""],
      ["connect", ""],
      ["http", "PATH_NOT_ALLOWED"],
    ]);
  });

  test("a large body, both ways, unharmed", async () => {
    await using door = await openDoor(world, ["GET,POST api.example.com:443"]);
    const { stdout } = await curl(door, "https://api.example.com/bytes/1000000");
    expect(stdout).toBe("x".repeat(1_000_000));
    const { stdout: echoed } = await curl(door, "https://api.example.com/echo", "-d", "y".repeat(100_000));
    expect(JSON.parse(echoed).body).toBe("y".repeat(100_000));
  });
});

/** What is asked for, beside rules that allow something else. */
const NOT_GRANTED: [what: string, rules: string[], args: string[], reason: string, missing: string | undefined][] = [
  ["a host", OPEN, ["http://other.example.com/x"], "NO_RULE", "GET other.example.com:80/x"],
  ["a port", OPEN, ["http://api.example.com:8080/"], "NO_RULE", "GET api.example.com:8080/"],
  [
    "a method",
    ["GET api.example.com:80"],
    ["-X", "DELETE", "http://api.example.com/x"],
    "METHOD_NOT_ALLOWED",
    "DELETE api.example.com:80/x",
  ],
  [
    "a path that climbs",
    ["api.example.com:80/v1/*"],
    ["--path-as-is", "http://api.example.com/v1/../x"],
    "PATH_AMBIGUOUS",
    undefined,
  ],
  ["an address", OPEN, ["http://127.0.0.1/"], "HOST_INVALID", undefined],
  ["an IPv6 address", OPEN, ["-g", "http://[::1]/"], "HOST_INVALID", undefined],
  ["the metadata address", OPEN, ["http://169.254.169.254/latest/meta-data/"], "HOST_INVALID", undefined],
  ["a number for an address", OPEN, ["http://2130706433/"], "HOST_INVALID", undefined],
  [
    "a name of the metadata address",
    ["metadata.example.com:80"],
    ["http://metadata.example.com/"],
    "ADDRESS_NOT_PUBLIC",
    undefined,
  ],
  [
    "a name with an inner address among others",
    ["inner.example.com:80"],
    ["http://inner.example.com/"],
    "ADDRESS_NOT_PUBLIC",
    undefined,
  ],
  [
    "a name of a mapped address",
    ["mapped.example.com:80"],
    ["http://mapped.example.com/"],
    "ADDRESS_NOT_PUBLIC",
    undefined,
  ],
  ["a name of the IPv6 loopback", ["six.example.com:80"], ["http://six.example.com/"], "ADDRESS_NOT_PUBLIC", undefined],
  [
    "another Host header",
    OPEN,
    ["-H", "Host: other.example.com", "http://api.example.com/"],
    "HOST_HEADER_MISMATCH",
    undefined,
  ],
  ["no Host header", OPEN, ["-H", "Host:", "http://api.example.com/"], "HOST_HEADER_MISMATCH", undefined],
];
describe("what is not granted is refused, and says which rule is missing", () => {
  test.each(NOT_GRANTED)("%s", async (_, rules, args, reason, missing) => {
    const before = world.connections();
    await using door = await openDoor(world, rules);
    const { stdout } = await curl(door, "-i", ...args);
    expect(stdout).toMatch(/^HTTP\/1\.1 (403|502)/);
    const { error } = JSON.parse(stdout.slice(stdout.indexOf("{")));
    expect(error).toMatchObject({
      by: "interlock",
      reason,
      ...(missing === undefined ? {} : { missing_rule: missing }),
    });
    expect(records(door)).toMatchObject([{ id: error.request_id, refused: reason }]);
    expect(world.connections()).toBe(before);
  });

  test("a tunnel", async () => {
    await using door = await openDoor(world, OPEN);
    const answer = await speak(
      door.socketPath,
      "CONNECT other.example.com:443 HTTP/1.1\r\nHost: other.example.com:443\r\n\r\n",
    );
    expect(answer).toMatch(/^HTTP\/1\.1 403 /);
    expect(answer).toContain('"missing_rule":"other.example.com:443"');
  });

  test("a redirect to another host, by the request that follows it", async () => {
    await using door = await openDoor(world, OPEN);
    const { stdout } = await curl(door, "-L", "http://api.example.com/redirect?to=http://other.example.com/x");
    expect(stdout).toContain("GET other.example.com:80/x");
    expect(records(door).map(({ refused }) => refused)).toEqual(["", "NO_RULE"]);
  });
});

describe("a tunnel is TLS that names its host", () => {
  const tunnel = (host: string) => `CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\n\r\n`;

  test("a server name of another host is refused", async () => {
    await using door = await openDoor(world, OPEN);
    const { code } = await client(door, "openssl", [
      ...[
        "s_client",
        "-proxy",
        door.url.slice(7),
        "-connect",
        "api.example.com:443",
        "-servername",
        "other.example.com",
      ],
      ...["-CAfile", door.trust, "-brief"],
    ]);
    expect(code).not.toBe(0);
    expect(records(door)).toMatchObject([{ refused: "SNI_MISMATCH" }]);
  });

  test("no server name is refused", async () => {
    await using door = await openDoor(world, OPEN);
    const { code } = await client(door, "openssl", [
      "s_client",
      "-proxy",
      door.url.slice(7),
      "-connect",
      "api.example.com:443",
      "-noservername",
      "-brief",
    ]);
    expect(code).not.toBe(0);
    expect(records(door)).toMatchObject([{ refused: "SNI_MISSING" }]);
  });

  test.each([
    ["HTTP in clear", "GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"],
    ["SSH", "SSH-2.0-OpenSSH_9\r\n"],
    ["another CONNECT", "CONNECT other.example.com:443 HTTP/1.1\r\n\r\n"],
  ])("%s is refused", async (_, bytes) => {
    await using door = await openDoor(world, OPEN);
    const answer = await speak(door.socketPath, tunnel("api.example.com") + bytes);
    expect(answer).toMatch(/^HTTP\/1\.1 200 [^\r]*\r\n\r\n\x15\x03\x01/);
    expect(records(door)).toMatchObject([{ refused: "NOT_TLS" }]);
  });

  test("inside TLS that we read, another Host header is refused", async () => {
    await using door = await openDoor(world, ["GET api.example.com:443"]);
    const { stdout } = await curl(door, "-H", "Host: other.example.com", "https://api.example.com/");
    expect(stdout).toContain("HOST_HEADER_MISMATCH");
    expect(world.seen.filter(({ headers }) => headers.host === "other.example.com")).toEqual([]);
  });
});

describe("a request that can be read in two ways is read in none", () => {
  const head = "POST http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n";
  test.each([
    ["two lengths", `${head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!`],
    [
      "a length and chunks",
      `${head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n`,
    ],
    ["an encoding of two minds", `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
    ["a folded header", `${head}Content-Length: 0\r\nX: a\r\n b: c\r\n\r\n`],
    ["a blank before the colon", `${head}Content-Length : 5\r\n\r\nhello`],
    ["a bare line feed", "GET http://api.example.com/ HTTP/1.1\nHost: api.example.com\n\n"],
    ["two Host headers", `${head}Host: other.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`],
    ["no proxy's form", "GET /smuggled HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"],
    [
      "a user in its URL",
      "GET http://api.example.com@other.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n",
    ],
    ["another scheme", "GET ftp://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"],
    ["TRACE", "TRACE http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"],
    ["a NUL in its host", "CONNECT api.example.com\0.evil.com:443 HTTP/1.1\r\n\r\n"],
    ["no port", "CONNECT api.example.com HTTP/1.1\r\nHost: api.example.com\r\n\r\n"],
  ])("%s", async (_, bytes) => {
    const before = world.seen.length;
    await using door = await openDoor(world, OPEN);
    expect(await speak(door.socketPath, bytes)).toMatch(/^HTTP\/1\.1 (400|403) /);
    expect(world.seen.length).toBe(before);
    expect(records(door).length).toBeGreaterThan(0);
  });

  test("what is smuggled behind a request meets nobody else's: each has a connection of its own", async () => {
    await using door = await openDoor(world, OPEN);
    const before = world.connections();
    const two =
      "GET http://api.example.com/one HTTP/1.1\r\nHost: api.example.com\r\n\r\nGET http://api.example.com/two HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n";
    const answer = await speak(door.socketPath, two);
    expect(answer).toMatch(/GET \/one[\s\S]*GET \/two/);
    expect(world.connections() - before).toBe(2);
  });
});

describe("its bounds", () => {
  test("bytes, both ways together, and not one more", async () => {
    await using door = await openDoor(world, ["GET api.example.com:80", "api.example.com:443"], { mostBytes: 100_000 });
    expect((await curl(door, "http://api.example.com/bytes/60000")).stdout.length).toBe(60_000);
    const { code, stdout } = await curl(door, "https://api.example.com/bytes/60000");
    expect(code).not.toBe(0);
    expect(stdout.length).toBeLessThan(40_000);
    expect(records(door).at(-1)).toMatchObject({ refused: "BYTES_EXCEEDED" });
    expect(door.proxy.usedBytes).toBe(100_000);
  });

  test("requests", async () => {
    await using door = await openDoor(world, OPEN);
    const one = "GET http://other.example.com/ HTTP/1.1\r\nHost: other.example.com\r\nConnection: close\r\n\r\n";
    for (let i = 0; i < 1_000; i += 50)
      await Promise.all(Array.from({ length: 50 }, () => speak(door.socketPath, one)));
    expect(await speak(door.socketPath, one)).toMatch(/^HTTP\/1\.1 429 /);
    expect(door.proxy.records.list()).toMatchObject({ left: 901 });
  });

  test("a server that is not there is another answer than a refusal", async () => {
    await using door = await openDoor({ ...world, resolve: async () => ({ address: "127.0.0.1", port: 1 }) }, OPEN);
    const { stdout } = await curl(door, "-i", "http://api.example.com/");
    expect(stdout).toMatch(/^HTTP\/1\.1 502/);
    expect(stdout).toContain("UPSTREAM_FAILED");
  });

  test("closing it ends what goes through it", async () => {
    const door = await openDoor(world, OPEN);
    const hanging = speak(door.socketPath, "CONNECT api.example.com:443 HTTP/1.1\r\n\r\n");
    await expect.poll(() => records(door).length).toBe(1);
    await door[Symbol.asyncDispose]();
    await hanging;
  });
});

describe("a credential", () => {
  const SECRET = "s3cr3t-t0ken/ü";
  const [anyPath, v1] = parseEgressRules(["api.example.com:443", "GET api.example.com:443/v1/*"]);
  if (anyPath === undefined || v1 === undefined) throw new Error("two rules");
  const bearer: Credential = {
    rule: anyPath,
    put: { in: "header", name: "Authorization" },
    value: `Bearer ${SECRET.replace("ü", "u")}`,
  };
  const VALUE = bearer.value;

  test("is put into the request outside, over what the program put there, and masked where it comes back", async () => {
    await using door = await openDoor(world, ["api.example.com:443"], { credentials: [bearer] });
    const { stdout } = await curl(door, "-i", "-H", "Authorization: mine", "https://api.example.com/echo");
    expect(world.seen.at(-1)?.headers.authorization).toBe(VALUE);
    expect(stdout).not.toContain(VALUE);
    expect(stdout).toContain(`x-echo: ${MASKED}`);
    expect(stdout).toContain(`"authorization":"${MASKED}"`);
  });

  test("is put into a query, in place of the program's own", async () => {
    const key: Credential = { rule: anyPath, put: { in: "query", name: "key" }, value: "abc/123&x" };
    await using door = await openDoor(world, ["api.example.com:443"], { credentials: [key] });
    await curl(door, "https://api.example.com/q?a=1&k%65y=mine&b=2");
    expect(world.seen.at(-1)?.url).toBe("/q?a=1&b=2&key=abc%2F123%26x");
    expect(JSON.stringify(records(door))).not.toContain("abc");
  });

  test("goes nowhere but where it belongs: not to another path, nor after a redirect to another host", async () => {
    const narrow = { ...bearer, rule: v1 };
    await using door = await openDoor(world, ["api.example.com:443", "other.example.com:443"], {
      credentials: [narrow],
    });
    await curl(door, "-L", "https://api.example.com/redirect?to=https://other.example.com/v1/x");
    expect(world.seen.slice(-2).map(({ server, headers }) => [server, headers.authorization])).toEqual([
      ["api.example.com", undefined],
      ["other.example.com", undefined],
    ]);
  });

  test("is not sent when two belong in one place", async () => {
    await using door = await openDoor(world, ["api.example.com:443"], {
      credentials: [bearer, { ...bearer, value: "another" }],
    });
    const before = world.seen.length;
    expect((await curl(door, "https://api.example.com/")).stdout).toContain("CREDENTIAL_AMBIGUOUS");
    expect(world.seen.length).toBe(before);
  });

  test("makes an answer that cannot be read for it one that is not passed on", async () => {
    await using door = await openDoor(world, ["api.example.com:443"], { credentials: [bearer] });
    expect((await curl(door, "https://api.example.com/gzip")).stdout).toContain("RESPONSE_NOT_READABLE");
  });
});

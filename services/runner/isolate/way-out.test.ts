import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseEgressRules } from "../../shared/egress.ts";
import { silentLog } from "../../shared/log.ts";
import type { SecretSpec } from "../../shared/manifest.ts";
import type { Backend, RunResult, RunSpec } from "../backend.ts";
import { openWorld, type World } from "../egress/test-world.ts";
import { envSecrets } from "../secrets.ts";
import { openIsolateBackend } from "./backend.ts";

/** Real workers, and real servers of this machine under public names. */

let world: World;
let backend: Backend;
beforeAll(async () => {
  world = await openWorld();
  backend = await openIsolateBackend({
    workers: { workers: 2, warm: 1, per_tenant: 64, require_confinement: false },
    secrets: { env: envSecrets({ INTERLOCK_SECRET_TOKEN: "s3cret-t0ken" }) },
    egress: { resolve: world.resolve, extraCa: [world.ca], now: Date.now },
    log: silentLog,
  });
});
afterAll(async () => {
  await backend[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
});

type Change = {
  readonly limits?: Partial<RunSpec["limits"]>;
  readonly secrets?: SecretSpec[];
  readonly calls?: number;
};

function specOf(code: string, rules: readonly string[], { limits, secrets = [], calls = 64 }: Change): RunSpec {
  return {
    ...{ callId: "c1", tenant: "demo", agent: "a1", session: "s1", user: "", impact: "low", tool: "t.fetch" },
    ...{ egress: parseEgressRules(rules), secrets, depth: 0, argumentsJson: "{}" },
    sandbox: { kind: "isolate", code, max_calls: calls },
    limits: {
      ...{ wallMs: 20_000, cpuMs: 2_000, memoryBytes: 128 << 20, outputBytes: 1 << 20, pids: 1, egressBytes: 16 << 20 },
      ...limits,
    },
  };
}

function run(code: string, rules: readonly string[], change: Change = {}, signal = new AbortController().signal) {
  return backend.run(specOf(code, rules, change), { signal, onOutput: () => {} });
}

function returned({ end, error, resultJson }: RunResult): unknown {
  expect({ end, error }).toEqual({ end: "exited", error: "" });
  return JSON.parse(resultJson);
}

const CAUGHT = "catch((error) => [error instanceof FetchError, error.reason, error.missingRule ?? null])";

describe("fetch", () => {
  it("reaches what a rule allows, over HTTP and TLS, and the result says what was reached", async () => {
    const result = await run(
      `const plain = await fetch("http://api.example.com/a?q=1#f");
       const secure = await fetch(new URL("https://API.example.com/status/404"));
       return [plain.status, plain.ok, await plain.text(), secure.status, secure.ok];`,
      ["api.example.com:443", "api.example.com:80"],
    );
    expect(returned(result)).toEqual([200, true, "api.example.com GET /a?q=1", 404, false]);
    expect(result.egress).toMatchObject({
      records: [
        { host: "api.example.com", port: 80, method: "GET", path: "/a", rule: "api.example.com:80", status: 200 },
        { host: "api.example.com", port: 443, path: "/status/404", rule: "api.example.com:443", status: 404 },
      ],
      left: 0,
    });
    expect(result.usage.egressBytes).toBeGreaterThan(20);
    expect(result.enforcement.enforced).toContain("egress-filter");
  });

  it("sends method, headers and a body of text or bytes, and reads JSON and bytes", async () => {
    const result = await run(
      `const how = { method: "post", headers: { "X-A": "1" }, body: "gr\u00fc\u00df" };
       const echo = await (await fetch("https://api.example.com/echo", how)).json();
       const bytes = await fetch("https://api.example.com/echo", { method: "PUT", body: new Uint8Array([65, 66]) });
       const got = new Uint8Array(await (await fetch("https://api.example.com/bytes/3")).arrayBuffer());
       return [echo.body, echo.headers["x-a"], echo.headers["content-type"], (await bytes.json()).body, [...got]];`,
      ["api.example.com:443"],
    );
    expect(returned(result)).toEqual(["grüß", "1", "text/plain;charset=UTF-8", "AB", [120, 120, 120]]);
  });
});

describe("fetch that may not be", () => {
  const refused: [what: string, request: string, rules: string[], want: unknown][] = [
    ["by rule", '"https://other.example.com/x"', ["api.example.com:443"], ["NO_RULE", "GET other.example.com:443/x"]],
    [
      "by method",
      '"http://api.example.com/x", { method: "POST", body: "1" }',
      ["GET api.example.com:80"],
      ["METHOD_NOT_ALLOWED", "POST api.example.com:80/x"],
    ],
    [
      "by path",
      '"http://api.example.com/v2/a"',
      ["GET api.example.com:80/v1/*"],
      ["PATH_NOT_ALLOWED", "GET api.example.com:80/v2/a"],
    ],
    ["by metadata address", '"http://metadata.example.com/"', ["*.example.com:80"], ["ADDRESS_NOT_PUBLIC", null]],
    ["by private address", '"http://inner.example.com/"', ["*.example.com:80"], ["ADDRESS_NOT_PUBLIC", null]],
    ["by an address for a name", '"http://127.0.0.1/"', ["*.example.com:80"], ["HOST_INVALID", null]],
    [
      "by redirect",
      '"http://api.example.com/redirect?to=http://other.example.com/x"',
      ["api.example.com:80"],
      ["NO_RULE", "GET other.example.com:80/x"],
    ],
    [
      "by redirect to a private address",
      '"http://api.example.com/redirect?to=http://inner.example.com/"',
      ["*.example.com:80"],
      ["ADDRESS_NOT_PUBLIC", null],
    ],
  ];
  it.each(refused)(
    "is refused %s, with the rule that is missing, and that is on record",
    async (_, request, rules, want) => {
      const result = await run(`return await fetch(${request}).then((got) => got.status).${CAUGHT}`, rules);
      expect(returned(result)).toEqual([true, ...(want as unknown[])]);
      expect(result.egress?.records.at(-1)).toMatchObject({ refused: (want as unknown[])[0], status: 0 });
    },
  );

  it("to HEAD is refused by the same reason, without a body to say it", async () => {
    const program = `return await fetch("http://a.example.com/", { method: "HEAD" }).${CAUGHT}`;
    expect(returned(await run(program, ["api.example.com:80"]))).toEqual([true, "NO_RULE", "HEAD a.example.com:80/"]);
  });
});

describe("fetch within its bounds", () => {
  it("follows redirects that rules allow, but tells another server nothing that was meant for the first", async () => {
    const result = await run(
      `const headers = { authorization: "mine", "x-a": "1" };
       const got = await fetch("http://api.example.com/redirect?to=http://other.example.com/echo", { headers });
       const first = await fetch("http://api.example.com/redirect?to=/x", { redirect: "manual" });
       const seen = (await got.json()).headers;
       return [got.url, seen["x-a"], seen.authorization ?? null, first.status, first.headers.get("Location")];`,
      ["api.example.com:80", "other.example.com:80"],
    );
    expect(returned(result)).toEqual(["http://other.example.com/echo", "1", null, 302, "/x"]);
  });

  it("each, and each redirect, is one of the calls a program may make", async () => {
    const program = `for (;;) await fetch("http://api.example.com/redirect?to=/x")`;
    const result = await run(program, ["api.example.com:80"], { calls: 5 });
    expect(result).toMatchObject({ end: "limit", limit: { name: "tool_calls", allowed: 5, used: 6 } });
    expect(result.egress?.records.length).toBe(5);
  });

  it("gets no more bytes than the call may move, nor an answer that is too long to be handed in", async () => {
    const program = (size: number): string =>
      `return await fetch("http://api.example.com/bytes/${size}").then((got) => got.status).${CAUGHT}`;
    const rules = ["api.example.com:80"];
    const capped = await run(program(200_000), rules, { limits: { egressBytes: 100_000 } });
    expect(returned(capped)).toEqual([true, "BYTES_EXCEEDED", null]);
    expect(capped.usage.egressBytes).toBe(100_000);
    expect(capped.egress?.records).toMatchObject([{ refused: "BYTES_EXCEEDED" }]);
    expect(returned(await run(program((4 << 20) + 1), rules))).toEqual([true, "BODY_TOO_LARGE", null]);
    const most = `return (await (await fetch("http://api.example.com/bytes/${4 << 20}")).arrayBuffer()).byteLength`;
    expect(returned(await run(most, rules))).toBe(4 << 20);
  });

  it("carries a credential that the program never sees, on requests of its rule only, masked in what comes back", async () => {
    const secrets: SecretSpec[] = [
      {
        ref: "secret://env/TOKEN",
        to: { kind: "header", rule: "api.example.com:443", name: "Authorization", format: "Bearer {}" },
      },
    ];
    const program = `const [here, there] = await Promise.all(["api", "other"].map((name) => fetch("https://" + name + ".example.com/echo")));
       return [(await here.json()).headers.authorization, (await there.json()).headers.authorization ?? null];`;
    const before = world.seen.length;
    const result = await run(program, ["api.example.com:443", "other.example.com:443"], { secrets });
    expect(returned(result)).toEqual(["[masked]", null]);
    const sent = world.seen.slice(before).map(({ server, headers }) => [server, headers.authorization]);
    expect(Object.fromEntries(sent)).toEqual({
      "api.example.com": "Bearer s3cret-t0ken",
      "other.example.com": undefined,
    });
  });

  it("cannot be made to believe a server that says it was Interlock's refusal", async () => {
    const program = `return (await fetch("http://api.example.com/forged")).headers.has("x-interlock-refused")`;
    expect(returned(await run(program, ["api.example.com:80"]))).toBe(false);
  });
});

describe("fetch that is none", () => {
  const bad: [what: string, request: string, says: RegExp][] = [
    ["another scheme", '"file:///etc/passwd"', /none of http or https/],
    ["a user name", '"http://a@api.example.com/"', /user name/],
    ["a body that GET has not", '"http://api.example.com/", { body: "x" }', /GET has no body/],
    [
      "a header that is not the program's",
      '"http://api.example.com/", { headers: { Host: "x" } }',
      /one that is set outside/,
    ],
    ["an option that there is not", '"http://api.example.com/", { mode: "cors" }', /not mode/],
    ["no address", '"nothing"', /Invalid URL/],
  ];
  it.each(bad)("with %s says what is wrong", async (_, request, says) => {
    const result = await run(`return await fetch(${request}).catch((error) => error.message)`, ["api.example.com:80"]);
    expect(returned(result)).toMatch(says);
  });

  it("ends with the program's wall clock, and nothing goes on behind it", async () => {
    const result = await run('await fetch("http://api.example.com/never")', ["api.example.com:80"], {
      limits: { wallMs: 1_000 },
    });
    expect(result).toMatchObject({ end: "timeout", limit: { name: "wall_ms" } });
    expect(result.egress?.records).toMatchObject([{ path: "/never", status: 0 }]);
    await expect.poll(() => world.openConnections()).toBe(0);
  });

  it("is not there where no host is granted", async () => {
    const result = await run("return [typeof fetch, 'fetch' in globalThis]", []);
    expect(returned(result)).toEqual(["undefined", false]);
    expect(result.egress).toBeUndefined();
  });
});

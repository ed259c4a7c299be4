import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RunResult } from "../backend.ts";
import type { ContainerBackend } from "../container.ts";
import { openWorld, type World } from "../egress/test-world.ts";
import { envSecrets, fileSecrets } from "../secrets.ts";
import {
  docker,
  openTestBackend,
  type Program,
  printed,
  python,
  runIn,
  shell,
  specOf,
  whyNoEngine,
} from "./test-engine.ts";

const skipped = await whyNoEngine();
const TOKEN = "t0ken-t0ken-t0ken";

const folder = mkdtempSync(join(tmpdir(), "interlock-secrets-"));
let world: World;
let backend: ContainerBackend;
beforeAll(async () => {
  if (skipped !== "") return;
  world = await openWorld(gitHost);
  writeFileSync(join(folder, "api-token"), `${TOKEN}\n`);
  const secrets = { file: fileSecrets(folder), env: envSecrets({ INTERLOCK_SECRET_DB: "db-passw0rd" }) };
  backend = await openTestBackend({ secrets, egress: { resolve: world.resolve, extraCa: [world.ca] } });
});
afterAll(async () => {
  await backend?.[Symbol.asyncDispose]();
  await world?.[Symbol.asyncDispose]();
  git.close();
  rmSync(folder, { recursive: true });
});

// A bare repository behind a server of files: what `git clone` reads when nothing smarter answers.
const repository = join(folder, "project.git");
const inGit = (...args: string[]) =>
  execFileSync("git", args, { cwd: folder, env: { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null" }, stdio: "pipe" });
const git = createServer((request, response) => {
  const file = join(folder, new URL(request.url ?? "", "http://x").pathname);
  if (!existsSync(file)) response.writeHead(404).end();
  else response.end(execFileSync("cat", [file]));
}).listen(0, "127.0.0.1");
await once(git, "listening");
const gitHost = [
  { host: "git.example.com", port: 80, address: "127.0.0.1", address_port: (git.address() as AddressInfo).port },
];

const EGRESS = ["api.example.com:443", "GET files.example.com:443/v1/*", "git.example.com:80"];
const through = (program: Program): Promise<RunResult> =>
  runIn(backend, { ...program, egress: program.egress ?? EGRESS });
const large = { limits: { memoryBytes: 256 << 20, wallMs: 30_000, pids: 32, outputBytes: 64 << 10 } };

describe.skipIf(skipped !== "")(`the way out of a container ${skipped}`, () => {
  test("curl, over TLS that is not read, and over TLS that is", async () => {
    const { stdout, stderr, egress, usage } = await through(
      shell("curl -sS https://api.example.com/a; echo; curl -sS https://files.example.com/v1/b"),
    );
    expect({ stdout, stderr }).toEqual({ stdout: "api.example.com GET /a\nfiles.example.com GET /v1/b", stderr: "" });
    expect(egress?.records.map(({ kind, host, refused }) => [kind, host, refused])).toEqual([
      ["connect", "api.example.com", ""],
      ["connect", "files.example.com", ""],
      ["http", "files.example.com", ""],
    ]);
    expect(usage.egressBytes).toBeGreaterThan(1_000);
  });

  test("openssl s_client sees the server's own certificate where nothing is read, and the sandbox's where it is", async () => {
    const issuer = (host: string) =>
      `openssl s_client -proxy 127.0.0.1:3128 -connect ${host}:443 -servername ${host} -verify_return_error -CAfile $SSL_CERT_FILE </dev/null 2>&1 | grep -E 'Verif|CONNECTED'`;
    const { stdout } = await through(shell(`${issuer("api.example.com")}; ${issuer("files.example.com")}`));
    expect(stdout.match(/CONNECTED/g)).toHaveLength(2);
    expect(stdout.match(/Verification: OK/g)).toHaveLength(2);
  });

  test("Python's standard client, as pip uses it: an index, then a file", async () => {
    const code =
      "import urllib.request as u; print(u.urlopen('https://files.example.com/v1/simple/').read().decode(), len(u.urlopen('https://files.example.com/v1/../v1/x' if 0 else 'https://api.example.com/bytes/100000').read()))";
    expect((await through(python(code, large))).stdout).toBe("files.example.com GET /v1/simple/ 100000\n");
  });

  test("git clone", async () => {
    inGit("init", "--quiet", "work");
    writeFileSync(join(folder, "work/README"), "hello\n");
    inGit("-C", "work", "add", ".");
    inGit("-C", "work", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "one");
    inGit("clone", "--quiet", "--bare", "work", repository);
    inGit("-C", repository, "update-server-info");
    const { stdout, stderr } = await through(
      shell("git clone --quiet http://git.example.com/project.git p && cat p/README", large),
    );
    expect({ stdout, stderr }).toEqual({ stdout: "hello\n", stderr: "" });
  });

  test("tells a program what is missing, and the record shows it", async () => {
    const { stdout, egress } = await through(
      shell("curl -sS -i http://other.example.com/x; curl -sS https://files.example.com/v2"),
    );
    expect(stdout).toContain("x-interlock-missing-rule: GET other.example.com:80/x");
    expect(stdout).toContain('"missing_rule":"GET files.example.com:443/v2"');
    expect(egress?.records.map(({ refused }) => refused)).toEqual(["NO_RULE", "", "PATH_NOT_ALLOWED"]);
  });

  test("is none where nothing was granted: no variable, no socket, no forwarder", async () => {
    const { stdout } = await runIn(
      backend,
      shell(
        "env | grep -ic proxy; ls /run/interlock | wc -l; curl -sS -x http://127.0.0.1:3128 http://api.example.com/ 2>&1",
      ),
    );
    expect(stdout).toMatch(/^0\n0\ncurl: \(7\) /);
  });

  test("is the only thing of the host inside, and cannot be written to", async () => {
    const { seen, onOutput } = printed("up");
    const cancel = new AbortController();
    const spec = specOf({
      ...shell("echo up; touch /run/interlock/x; rm -f /run/interlock/egress.sock; ls /run/interlock; sleep 60"),
      egress: EGRESS,
    });
    const running = backend.run(spec, { signal: cancel.signal, onOutput });
    await seen;
    const all = await docker.listContainers({ filters: { label: ["interlock.runner"] } });
    const mounts = all.flatMap(({ Mounts }) => Mounts).filter(({ Destination }) => Destination === "/run/interlock");
    expect(mounts).toEqual(expect.arrayContaining([expect.objectContaining({ Type: "bind", RW: false })]));
    cancel.abort();
    expect(await running).toMatchObject({
      stdout: expect.stringMatching(/^up\n(ca.pem\negress.sock\n)?/),
      end: "killed",
    });
  });
});

describe.skipIf(skipped !== "")(`a secret of a container ${skipped}`, () => {
  test("puts a credential in outside: the program cannot find it anywhere", async () => {
    const rule = "api.example.com:443";
    const secrets = [
      { ref: "secret://file/api-token", to: { kind: "header", rule, name: "Authorization", format: "Bearer {}" } },
    ] as const;
    const code =
      "curl -sS https://api.example.com/echo; env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; cat /run/interlock/ca.pem | tail -1";
    const result = await through({ ...shell(code), secrets });
    expect(world.seen.at(-1)?.headers.authorization).toBe(`Bearer ${TOKEN}`);
    expect(JSON.stringify(result)).not.toContain(TOKEN);
    expect(result.stdout).toContain("[masked]");
  });

  test("a secret in a variable is masked in all that comes out, in pieces and in base64 too", async () => {
    const secrets = [{ ref: "secret://env/DB", to: { kind: "env", name: "DB_PASSWORD" } }] as const;
    let streamed = "";
    const code =
      'printf %s $DB_PASSWORD | (head -c 5; sleep 0.1; cat; echo); printf %s "x$DB_PASSWORD" | base64; echo $DB_PASSWORD >&2';
    const result = await runIn(
      backend,
      { ...shell(code), secrets },
      {
        onOutput: (_, text) => {
          streamed += text;
        },
      },
    );
    expect(result.stdout).toBe("[masked]\neG[masked]\n");
    expect(result.stderr).toBe("[masked]\n");
    expect(streamed).not.toContain("passw0rd");
    expect(JSON.stringify(result)).not.toContain("db-pa");
  });

  test.each([
    ["is not there", "secret://file/nothing", "SECRET_MISSING"],
    ["nobody keeps", "secret://vault/kv/app#token", "SECRETS_UNAVAILABLE"],
  ])("a secret that %s: nothing starts", async (_, ref, reason) => {
    const secrets = [{ ref, to: { kind: "env", name: "X" } }] as const;
    await expect(runIn(backend, { ...shell("true"), secrets })).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      reason,
      field: "secrets",
    });
  });
});

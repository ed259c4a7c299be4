import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it, test } from "vitest";
import { SECRET_REF } from "../shared/secret-ref.ts";
import {
  envSecrets,
  fileSecrets,
  parseSecretRef,
  resolveSecret,
  type SecretProviders,
  vaultSecrets,
} from "./secrets.ts";

const NEVER = new AbortController().signal;
const folder = mkdtempSync(join(tmpdir(), "interlock-secrets-"));
writeFileSync(join(folder, "token"), "from-file\n");
writeFileSync(join(folder, "empty"), "\n");
writeFileSync(join(folder, "lines"), "a\nb\n");
writeFileSync(join(folder, "vault-token"), "root-token\n");

/** As Vault's key-value engine answers: version 2 of its HTTP API. */
const vault = createServer((request, response) => {
  const data = { "/v1/kv/data/app/db": { password: "from-vault", port: 5432 } }[request.url ?? ""];
  if (request.headers["x-vault-token"] !== "root-token")
    response.writeHead(403).end('{"errors":["permission denied"]}');
  else if (request.url === "/v1/kv/data/moved") response.writeHead(302, { location: "http://127.0.0.1:1/" }).end();
  else if (data === undefined) response.writeHead(404).end('{"errors":[]}');
  else response.end(JSON.stringify({ request_id: "x", data: { data, metadata: { version: 1 } } }));
}).listen(0, "127.0.0.1");
await once(vault, "listening");
const address = `http://127.0.0.1:${(vault.address() as AddressInfo).port}`;
afterAll(() => {
  vault.close();
  rmSync(folder, { recursive: true });
});

const PROVIDERS: SecretProviders = {
  file: fileSecrets(folder),
  env: envSecrets({ INTERLOCK_SECRET_TOKEN: "from-env", PATH: "/bin" }),
  vault: vaultSecrets({ address, tokenFile: join(folder, "vault-token") }),
};

describe("a secret", () => {
  test.each([
    ["secret://file/token", "from-file"],
    ["secret://env/TOKEN", "from-env"],
    ["secret://vault/kv/app/db#password", "from-vault"],
  ])("%s is read where it is", async (ref, value) => {
    expect(await resolveSecret(PROVIDERS, ref, NEVER)).toBe(value);
  });

  test.each([
    ["secret://file/nothing", "SECRET_MISSING"],
    ["secret://env/NOTHING", "SECRET_MISSING"],
    ["secret://env/PATH", "SECRET_MISSING"],
    ["secret://vault/kv/app/other#password", "SECRET_MISSING"],
    ["secret://vault/kv/app/db#other", "SECRET_MISSING"],
    ["secret://vault/kv/app/db#port", "SECRET_MISSING"],
    ["secret://vault/kv/moved#x", "SECRETS_UNAVAILABLE"],
    ["secret://file/empty", "SECRET_INVALID"],
    ["secret://file/lines", "SECRET_INVALID"],
  ])("%s is refused, and the refusal names it and nothing else", async (ref, reason) => {
    const refusal = { code: "FAILED_PRECONDITION", reason, field: "secrets", message: expect.stringContaining(ref) };
    await expect(resolveSecret(PROVIDERS, ref, NEVER)).rejects.toMatchObject(refusal);
  });

  it("of a place that is not configured, or does not answer, is refused", async () => {
    await expect(resolveSecret({}, "secret://file/token", NEVER)).rejects.toMatchObject({
      reason: "SECRETS_UNAVAILABLE",
    });
    const gone = { vault: vaultSecrets({ address: "http://127.0.0.1:1", tokenFile: join(folder, "vault-token") }) };
    await expect(resolveSecret(gone, "secret://vault/kv/a#b", NEVER)).rejects.toMatchObject({
      reason: "SECRETS_UNAVAILABLE",
    });
    const denied = { vault: vaultSecrets({ address, tokenFile: join(folder, "token") }) };
    await expect(resolveSecret(denied, "secret://vault/kv/app/db#password", NEVER)).rejects.toMatchObject({
      reason: "SECRETS_UNAVAILABLE",
    });
  });
});

test.each([
  "secret://file/../etc/passwd",
  "secret://file/a/b",
  "secret://file/.ssh",
  "secret://file/",
  "secret://env/A B",
  "secret://vault/kv/app",
  "secret://vault/kv/../sys#x",
  "secret://vault/kv/a?b#x",
  "secret://other/x",
  "file/x",
])("%s is no reference", (text) => {
  expect(SECRET_REF.test(text)).toBe(false);
  expect(() => parseSecretRef(text)).toThrow();
});

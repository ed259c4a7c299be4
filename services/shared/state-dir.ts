import { createHash, type KeyObject, randomBytes } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { z } from "zod";
import { type ApiKey, type Config, keysSchema } from "./config.ts";
import { newSigningKeyPem, publicKeyFromPem, type Signer, signerFromPem } from "./signing.ts";
import { FileProblems, readYaml } from "./yaml-file.ts";

/** What a process reads from its state directory; the first `interlock up` makes it. */

/** Plain keys by the name of who they belong to, for the command line on the same machine. */
export const credentialsSchema = z.record(z.string(), z.string());

export function keysFile(config: Config): string {
  return config.keys ?? join(config.state, "keys.yaml");
}

export function credentialsFile(state: string): string {
  return join(state, "credentials.yaml");
}

/** Makes what is missing: the directory, a signing key, and keys for the demo's agent, reviewer and operator. */
export function initialiseState(config: Config): { readonly created: readonly string[] } {
  const created: string[] = [];
  mkdirSync(config.state, { recursive: true, mode: 0o700 });
  const write = (file: string, text: string, mode: number) => {
    writeFileSync(file, text, { mode, flag: "wx" });
    chmodSync(file, mode);
    created.push(file);
  };
  const signingFile = config.signing_key ?? join(config.state, "signing.pem");
  if (!existsSync(signingFile)) {
    const pem = newSigningKeyPem();
    write(signingFile, pem, 0o600);
    const publicPem = signerFromPem(pem).publicKey.export({ type: "spki", format: "pem" }).toString();
    write(join(config.state, "signing.pub.pem"), publicPem, 0o644);
  }
  const pageFile = config.approvals.page_key ?? join(config.state, "page.key");
  if (!existsSync(pageFile)) write(pageFile, `${randomBytes(32).toString("base64")}\n`, 0o600);
  if (!existsSync(keysFile(config))) {
    const { keys, credentials } = demoKeys();
    write(keysFile(config), stringify({ keys }), 0o600);
    write(credentialsFile(config.state), stringify(credentials), 0o600);
  }
  return { created };
}

/** @throws FileProblems when the file is missing or malformed. */
export function readKeys(config: Config): readonly ApiKey[] {
  return readYaml(keysFile(config), keysSchema).value.keys;
}

/** @throws FileProblems when the key is missing or no Ed25519 key. */
export function readSigner(config: Config): Signer {
  return readSignerFile(config.signing_key ?? join(config.state, "signing.pem"));
}

/** @throws FileProblems when the file is missing or no Ed25519 key. */
export function readSignerFile(file: string): Signer {
  return readAs(file, signerFromPem);
}

/** The public keys whose permits this machine's runner accepts. @throws FileProblems */
export function readTrustedKeys(config: Config): readonly KeyObject[] {
  const files = config.trusted_keys ?? [join(config.state, "signing.pub.pem")];
  return files.map((file) => readAs(file, publicKeyFromPem));
}

/** The public keys whose signature a policy needs; none where policies need none. @throws FileProblems */
export function readPolicyKeys(config: Config): readonly KeyObject[] {
  return config.policy.trusted_keys.map((file) => readAs(file, publicKeyFromPem));
}

/** @throws FileProblems when a file cannot be read or is empty. */
export function readSecrets(config: Config): readonly string[] {
  return config.secrets.map((file) =>
    readAs(file, (text) => {
      const secret = text.trim();
      if (secret.length < 6) throw new Error("a secret shorter than 6 characters cannot be masked without false hits");
      return secret;
    }),
  );
}

export function hashKey(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}

function demoKeys(): { keys: ApiKey[]; credentials: Record<string, string> } {
  const credentials = { "demo-agent": newKey(), alice: newKey(), operator: newKey() };
  return {
    credentials,
    keys: [
      { kind: "agent", sha256: hashKey(credentials["demo-agent"]), tenant: "demo", agent: "demo-agent" },
      {
        kind: "person",
        sha256: hashKey(credentials.alice),
        tenant: "demo",
        name: "alice",
        roles: ["reviewer"],
        groups: ["support-leads"],
      },
      {
        kind: "person",
        sha256: hashKey(credentials.operator),
        tenant: "demo",
        name: "operator",
        roles: ["operator"],
        groups: [],
      },
    ],
  };
}

function newKey(): string {
  return `ilk_${randomBytes(32).toString("base64url")}`;
}

function readAs<T>(file: string, parse: (text: string) => T): T {
  try {
    return parse(readFileSync(file, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new FileProblems([{ file, line: undefined, field: "", message: `It cannot be used: ${why}` }]);
  }
}

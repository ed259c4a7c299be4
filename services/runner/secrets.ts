import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { RpcError } from "../shared/rpc/errors.ts";
import { SECRET_REF } from "../shared/secret-ref.ts";

/** Where secrets are, for references of one kind. What it gives is used for one call and kept nowhere. */
export type SecretProvider = {
  /** @throws SecretMissing, or an Error of the place itself. */
  resolve(ref: SecretRef, signal: AbortSignal): Promise<string>;
};

export type SecretRef =
  | { readonly provider: "file" | "env"; readonly name: string }
  | { readonly provider: "vault"; readonly mount: string; readonly path: string; readonly field: string };

export class SecretMissing extends Error {}

export type SecretProviders = Partial<Record<SecretRef["provider"], SecretProvider>>;

const MAX_BYTES = 64 << 10;
const VAULT_MS = 5_000;

/** One file a secret, in one directory; a final line break is none of it. */
export function fileSecrets(directory: string): SecretProvider {
  return {
    resolve: async (ref) => {
      if (ref.provider !== "file") throw new SecretMissing();
      try {
        return (await readFile(join(directory, ref.name), "utf8")).replace(/\r?\n$/, "");
      } catch (error) {
        if (error instanceof Error && "code" in error && error.code === "ENOENT") throw new SecretMissing();
        throw error;
      }
    },
  };
}

/** Variables of the runner's environment whose names begin so: a manifest must not reach the others. */
export const ENV_PREFIX = "INTERLOCK_SECRET_";

export function envSecrets(env: Readonly<Record<string, string | undefined>>): SecretProvider {
  return {
    resolve: async (ref) => {
      const value = ref.provider === "env" ? env[ENV_PREFIX + ref.name] : undefined;
      if (value === undefined) throw new SecretMissing();
      return value;
    },
  };
}

const vaultAnswer = z.object({ data: z.object({ data: z.record(z.string(), z.unknown()) }) });

/** HashiCorp Vault's key-value engine, version 2, over its HTTP API. The token's file is read anew for every secret. */
export function vaultSecrets(options: { readonly address: string; readonly tokenFile: string }): SecretProvider {
  return {
    resolve: async (ref, signal) => {
      if (ref.provider !== "vault") throw new SecretMissing();
      const token = (await readFile(options.tokenFile, "utf8")).trim();
      const url = new URL(`/v1/${ref.mount}/data/${ref.path}`, options.address);
      const headers = { "x-vault-token": token, "x-vault-request": "true" };
      const within = AbortSignal.any([signal, AbortSignal.timeout(VAULT_MS)]);
      const response = await fetch(url, { headers, redirect: "error", signal: within });
      if (response.status === 404) throw new SecretMissing();
      if (!response.ok) throw new Error(`Vault answered ${response.status}`);
      const value = vaultAnswer.parse(await response.json()).data.data[ref.field];
      if (typeof value !== "string") throw new SecretMissing();
      return value;
    },
  };
}

/** @throws RpcError FAILED_PRECONDITION naming the reference, never what is behind it. */
export async function resolveSecret(providers: SecretProviders, text: string, signal: AbortSignal): Promise<string> {
  const ref = parseSecretRef(text);
  const provider = providers[ref.provider];
  if (provider === undefined) {
    throw refused("SECRETS_UNAVAILABLE", `${text} cannot be read: configure runner.secrets.${ref.provider}.`);
  }
  let value: string;
  try {
    value = await provider.resolve(ref, signal);
  } catch (error) {
    if (error instanceof SecretMissing)
      throw refused("SECRET_MISSING", `${text} is not there; add it, or mend the manifest.`);
    throw refused("SECRETS_UNAVAILABLE", `${text} cannot be read now; the operator's log says why.`, error);
  }
  if (value === "" || value.length > MAX_BYTES || /[\0\r\n]/.test(value)) {
    throw refused("SECRET_INVALID", `${text} is empty, longer than ${MAX_BYTES} characters or of more than one line.`);
  }
  return value;
}

/** The manifest has been checked: a reference that is none is a fault of ours. */
export function parseSecretRef(text: string): SecretRef {
  const parts = SECRET_REF.exec(text)?.groups;
  if (parts === undefined) throw new Error(`${text} is no reference to a secret`);
  const { provider, name = "", mount = "", path = "", field = "" } = parts;
  return provider === "file" || provider === "env" ? { provider, name } : { provider: "vault", mount, path, field };
}

function refused(reason: string, message: string, cause?: unknown): RpcError {
  return new RpcError({ code: "FAILED_PRECONDITION", reason, field: "secrets", message, cause });
}

import { parseEgressRules } from "../shared/egress.ts";
import type { SecretSpec } from "../shared/manifest.ts";
import { type Masker, maskerOf } from "../shared/mask.ts";
import type { Credential } from "./egress/credentials.ts";
import { resolveSecret, type SecretProviders } from "./secrets.ts";

/** The secrets of one call, resolved: for its time only, and nowhere else. */
export type CallSecrets = {
  /** Put into requests by the proxy, outside the sandbox. */
  readonly credentials: readonly Credential[];
  /** Inside. */
  readonly env: Readonly<Record<string, string>>;
  readonly newMasker: () => Masker;
  /** Over bytes, each a character: what is not ASCII in a secret is spelled so there. */
  readonly newByteMasker: () => Masker;
};

/** @throws RpcError FAILED_PRECONDITION naming the reference that cannot be resolved; nothing has started. */
export async function resolveSecrets(
  providers: SecretProviders,
  specs: readonly SecretSpec[],
  signal: AbortSignal,
): Promise<CallSecrets> {
  const values = await Promise.all(specs.map(({ ref }) => resolveSecret(providers, ref, signal)));
  const credentials: Credential[] = [];
  const env: Record<string, string> = {};
  for (const [index, { to }] of specs.entries()) {
    const value = values[index] ?? "";
    if (to.kind === "env") env[to.name] = value;
    else {
      const [rule] = parseEgressRules([to.rule]);
      if (rule === undefined) continue;
      const put = { in: to.kind, name: to.name } as const;
      credentials.push({ rule, put, value: to.kind === "header" ? to.format.replace("{}", () => value) : value });
    }
  }
  const inFormats = credentials.map((credential) => credential.value);
  const all = [...new Set([...values, ...inFormats])];
  const newByteMasker = maskerOf([...all, ...all.map((value) => Buffer.from(value).toString("latin1"))]);
  return { credentials, env, newMasker: maskerOf(all), newByteMasker };
}

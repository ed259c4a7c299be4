import { z } from "zod";
import type { Signer, Verifier } from "../shared/signing.ts";
import { type Bundle, digestOf, SIGNATURE_FILE } from "./bundle.ts";

/** Signed revisions: `policy.sig` holds an Ed25519 signature over the digest of all other files. */

const signatureSchema = z.strictObject({ key_id: z.string(), signature: z.base64() });

/** What goes into policy.sig. */
export async function signBundle(bundle: Bundle, signer: Signer): Promise<string> {
  const signed = await signer.sign("policy", Buffer.from(digestOf(bundle)));
  return `${JSON.stringify({ key_id: signed.keyId, signature: Buffer.from(signed.signature).toString("base64") })}\n`;
}

/** The key that signed it, or what is wrong and how to mend it. */
export function checkSignature(
  bundle: Bundle,
  verifier: Verifier,
): { readonly kind: "signed"; readonly keyId: string } | { readonly kind: "refused"; readonly message: string } {
  const mend = "sign the policy as it is now: interlock policy sign <dir> --key <file>";
  const text = bundle.get(SIGNATURE_FILE);
  if (text === undefined) return refused(`Only signed policies are taken here, and this one is not; ${mend}.`);
  const parsed = signatureSchema.safeParse(jsonOf(text));
  if (!parsed.success) return refused(`It is no signature; ${mend}.`);
  const { key_id: keyId, signature } = parsed.data;
  const payload = Buffer.from(digestOf(bundle));
  switch (verifier.verify("policy", { payload, signature: Buffer.from(signature, "base64"), keyId })) {
    case "ok":
      return { kind: "signed", keyId };
    case "unknown key":
      return refused(
        `It is signed by the key ${keyId.slice(0, 32)}, which is not trusted here; add that key to policy.trusted_keys, or ${mend}.`,
      );
    case "bad signature":
      return refused(`The files are not those that were signed; ${mend}.`);
  }
}

function refused(message: string): { readonly kind: "refused"; readonly message: string } {
  return { kind: "refused", message };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

import "reflect-metadata";
import { webcrypto, X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext } from "node:tls";
import * as x509 from "@peculiar/x509";

/** For the clocks on both sides; a sandbox does not live for a day. */
const SKEW_MS = 3_600_000;
const LIFE_MS = 86_400_000;
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const MAX_HOSTS = 256;

/**
 * A certificate authority of one sandbox, which only that sandbox trusts and nobody else knows. Its key stays in this
 * process's memory and dies with the sandbox.
 */
export class Authority {
  /** PEM: what the sandbox is to trust. */
  readonly certificate: string;
  readonly #keys: webcrypto.CryptoKeyPair;
  readonly #name: string;
  readonly #contexts = new Map<string, Promise<SecureContext>>();

  private constructor(keys: webcrypto.CryptoKeyPair, name: string, certificate: string) {
    this.#keys = keys;
    this.#name = name;
    this.certificate = certificate;
  }

  static async create(nowMs: number): Promise<Authority> {
    const keys = await newKeys();
    const name = "CN=Interlock sandbox egress";
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      ...{ name, keys, signingAlgorithm: ALGORITHM, serialNumber: serial() },
      ...validity(nowMs),
      extensions: [
        new x509.BasicConstraintsExtension(true, 0, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false),
      ],
    });
    return new Authority(keys, name, certificate.toString("pem"));
  }

  /** What to end TLS with for a host. */
  contextFor(host: string, nowMs: number): Promise<SecureContext> {
    const known = this.#contexts.get(host);
    if (known !== undefined) return known;
    if (this.#contexts.size >= MAX_HOSTS) this.#contexts.clear();
    const made = this.#issue(host, nowMs);
    this.#contexts.set(host, made);
    return made;
  }

  async #issue(host: string, nowMs: number): Promise<SecureContext> {
    const keys = await newKeys();
    const certificate = await x509.X509CertificateGenerator.create({
      ...{ subject: "CN=sandbox", issuer: this.#name, serialNumber: serial(), signingAlgorithm: ALGORITHM },
      ...{ publicKey: keys.publicKey, signingKey: this.#keys.privateKey },
      ...validity(nowMs),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth], false),
        new x509.SubjectAlternativeNameExtension([{ type: "dns", value: host }], false),
        await x509.AuthorityKeyIdentifierExtension.create(this.#keys.publicKey, false),
      ],
    });
    const pkcs8 = await webcrypto.subtle.exportKey("pkcs8", keys.privateKey);
    const cert = new X509Certificate(Buffer.from(certificate.rawData)).toString();
    return createSecureContext({ cert, key: x509.PemConverter.encode(pkcs8, "PRIVATE KEY"), minVersion: "TLSv1.2" });
  }
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return (await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"])) as webcrypto.CryptoKeyPair;
}

function validity(nowMs: number): { notBefore: Date; notAfter: Date } {
  return { notBefore: new Date(nowMs - SKEW_MS), notAfter: new Date(nowMs + LIFE_MS) };
}

function serial(): string {
  return Buffer.from(webcrypto.getRandomValues(new Uint8Array(16)))
    .toString("hex")
    .replace(/^./, "1");
}

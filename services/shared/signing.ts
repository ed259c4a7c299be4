import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { type Inclusion, leafHash, merkleTree, rootOf } from "./merkle.ts";

/**
 * Ed25519 signatures (RFC 8032), made in batches. A signature costs 40 µs and its check 110 µs, which at thousands of
 * calls a second is most of a processor. So what is to be signed at about the same time becomes the leaves of one
 * Merkle tree, its root is signed once, and whoever checks does the costly part once for each root.
 *
 * The signature that goes with a payload is
 *
 *     64 bytes Ed25519 over `interlock/<purpose>/v1` 0x00 root | u32 index | u32 leaves | path, 32 bytes each
 */

/** The shape of interlock.v1.Signed. */
export type SignedBytes = {
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
  readonly keyId: string;
};

/** Signs with one Ed25519 key. */
export type Signer = {
  readonly keyId: string;
  readonly publicKey: KeyObject;
  readonly sign: (purpose: Purpose, payload: Uint8Array) => Promise<SignedBytes>;
};

/** Checks against a fixed set of keys. */
export type Verifier = {
  readonly verify: (purpose: Purpose, signed: SignedBytes) => "ok" | "unknown key" | "bad signature";
};

/** What a signature is for goes under it, so that a receipt can never pass for a permit. */
export type Purpose = "permit" | "receipt" | "checkpoint" | "policy";

export function newSigningKeyPem(): string {
  return generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString();
}

/** @throws Error when the PEM is no Ed25519 private key. */
export function signerFromPem(pem: string): Signer {
  const key = createPrivateKey(pem);
  if (key.asymmetricKeyType !== "ed25519") throw new Error(`want an Ed25519 key, this is ${key.asymmetricKeyType}`);
  const publicKey = createPublicKey(key);
  const id = keyId(publicKey);
  /** What is being gathered, and when the last signature was made. */
  const batches = new Map<Purpose, Batch>();
  const lastMs = new Map<Purpose, number>();
  return {
    keyId: id,
    publicKey,
    sign: (purpose, payload) =>
      new Promise((resolve, reject) => {
        const item = { payload, resolve, reject };
        const open = batches.get(purpose);
        if (open !== undefined && open.length < MAX_LEAVES) {
          open.push(item);
          return;
        }
        // A lone payload is signed at once; where many come, a moment's wait lets them share a signature.
        if (performance.now() - (lastMs.get(purpose) ?? 0) > LONE_MS) {
          lastMs.set(purpose, performance.now());
          signBatch(key, id, purpose, [item]);
          return;
        }
        const batch: Batch = [item];
        batches.set(purpose, batch);
        setTimeout(() => {
          if (batches.get(purpose) === batch) batches.delete(purpose);
          lastMs.set(purpose, performance.now());
          signBatch(key, id, purpose, batch);
        }, GATHER_MS);
      }),
  };
}

type Batch = {
  readonly payload: Uint8Array;
  readonly resolve: (signed: SignedBytes) => void;
  readonly reject: (error: unknown) => void;
}[];

/** Leaves of one tree: a path has at most 8 hashes, and one turn of the event loop stays short. */
const MAX_LEAVES = 256;
/** Signatures that follow one another faster than this are worth gathering. */
const LONE_MS = 1;
const GATHER_MS = 1;
const ED25519_BYTES = 64;
const HASH_BYTES = 32;
const MAX_PATH = 32;

function signBatch(key: KeyObject, id: string, purpose: Purpose, batch: Batch): void {
  try {
    const { root, inclusions } = merkleTree(batch.map(({ payload }) => leafHash(payload)));
    const signature = sign(null, underPurpose(purpose, root), key);
    batch.forEach(({ payload, resolve }, i) => {
      const inclusion = inclusions[i];
      if (inclusion !== undefined) resolve({ payload, signature: toSignature(signature, inclusion), keyId: id });
    });
  } catch (error) {
    for (const { reject } of batch) reject(error);
  }
}

/** Roots whose signature was checked; the oldest is forgotten first. */
const MAX_ROOTS = 1024;

export function verifierOf(publicKeys: readonly KeyObject[]): Verifier {
  const byId = new Map(publicKeys.map((key) => [keyId(key), key]));
  const good = new Set<string>();
  return {
    verify: (purpose, signed) => {
      const key = byId.get(signed.keyId);
      if (key === undefined) return "unknown key";
      const inclusion = parseInclusion(signed.signature);
      const root = inclusion === undefined ? undefined : rootOf(leafHash(signed.payload), inclusion);
      if (root === undefined) return "bad signature";
      const signature = signed.signature.subarray(0, ED25519_BYTES);
      const known = `${purpose} ${signed.keyId} ${Buffer.from(root).toString("latin1")}${Buffer.from(signature).toString("latin1")}`;
      if (good.has(known)) return "ok";
      if (!verify(null, underPurpose(purpose, root), key, signature)) return "bad signature";
      const [oldest] = good;
      if (good.size >= MAX_ROOTS && oldest !== undefined) good.delete(oldest);
      good.add(known);
      return "ok";
    },
  };
}

export function publicKeyFromPem(pem: string): KeyObject {
  return createPublicKey(pem);
}

function toSignature(signature: Uint8Array, { index, size, path }: Inclusion): Uint8Array {
  const place = Buffer.alloc(8);
  place.writeUInt32BE(index, 0);
  place.writeUInt32BE(size, 4);
  return Buffer.concat([signature, place, ...path]);
}

function parseInclusion(signature: Uint8Array): Inclusion | undefined {
  const bytes = Buffer.from(signature.buffer, signature.byteOffset, signature.byteLength);
  const pathBytes = bytes.length - ED25519_BYTES - 8;
  if (pathBytes < 0 || pathBytes % HASH_BYTES !== 0 || pathBytes > MAX_PATH * HASH_BYTES) return undefined;
  const path: Uint8Array[] = [];
  for (let at = ED25519_BYTES + 8; at < bytes.length; at += HASH_BYTES) path.push(bytes.subarray(at, at + HASH_BYTES));
  return { index: bytes.readUInt32BE(ED25519_BYTES), size: bytes.readUInt32BE(ED25519_BYTES + 4), path };
}

function keyId(publicKey: KeyObject): string {
  const der = publicKey.export({ type: "spki", format: "der" });
  return createHash("sha256").update(der).digest("hex").slice(0, 16);
}

function underPurpose(purpose: Purpose, root: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`interlock/${purpose}/v1\0`), root]);
}

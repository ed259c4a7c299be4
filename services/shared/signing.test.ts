import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { leafHash, merkleTree, rootOf } from "./merkle.ts";
import { newSigningKeyPem, type SignedBytes, type Signer, signerFromPem, verifierOf } from "./signing.ts";

const signer = signerFromPem(newSigningKeyPem());
const stranger = signerFromPem(newSigningKeyPem());
const bytes = (text: string): Uint8Array => Buffer.from(text);
const verify = (purpose: "permit" | "receipt", signed: SignedBytes): string =>
  verifierOf([signer.publicKey]).verify(purpose, signed);

const many = (of: Signer, count: number): Promise<SignedBytes[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => of.sign("permit", bytes(`payload ${i}`))));

describe("a signature", () => {
  it.each([1, 2, 3, 7, 64, 255, 256, 257, 600])("is good for each of %i payloads signed at once", async (count) => {
    const verifier = verifierOf([signer.publicKey]);
    const all = await many(signer, count);
    expect(all.map((signed) => verifier.verify("permit", signed))).toEqual(all.map(() => "ok"));
  });

  const changes: [what: string, change: (signed: SignedBytes, other: SignedBytes) => SignedBytes, want: string][] = [
    ["nothing", (signed) => signed, "ok"],
    ["the payload", (signed) => ({ ...signed, payload: bytes("payload 2") }), "bad signature"],
    [
      "the payload for another's of the batch",
      (signed, other) => ({ ...signed, payload: other.payload }),
      "bad signature",
    ],
    ["the key's name for an unknown one", (signed) => ({ ...signed, keyId: "0000000000000000" }), "unknown key"],
    ["the signature for none", (signed) => ({ ...signed, signature: new Uint8Array() }), "bad signature"],
    ["the path for none", (signed) => ({ ...signed, signature: signed.signature.subarray(0, 72) }), "bad signature"],
    [
      "the signature cut short",
      (signed) => ({ ...signed, signature: signed.signature.subarray(0, -1) }),
      "bad signature",
    ],
  ];
  it.each(changes)("with %s changed is told so", async (_, change, want) => {
    const [, first, second] = await many(signer, 5); // the first may be signed alone
    if (first === undefined || second === undefined) throw new Error("nothing was signed");
    expect(verify("permit", change(first, second))).toBe(want);
  });

  it("with any one bit changed is bad", async () => {
    const [, signed] = await many(signer, 4);
    if (signed === undefined) throw new Error("nothing was signed");
    const verifier = verifierOf([signer.publicKey]);
    for (let bit = 0; bit < signed.signature.length * 8; bit++) {
      const changed = Buffer.from(signed.signature);
      changed.writeUInt8(changed.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      expect(verifier.verify("permit", { ...signed, signature: changed }), `bit ${bit}`).toBe("bad signature");
    }
  });

  it("for one purpose is none for another", async () => {
    expect(verify("receipt", await signer.sign("permit", bytes("x")))).toBe("bad signature");
  });

  it("of a stranger is unknown, also under a trusted key's name", async () => {
    const signed = await stranger.sign("permit", bytes("x"));
    expect(verify("permit", signed)).toBe("unknown key");
    expect(verify("permit", { ...signed, keyId: signer.keyId })).toBe("bad signature");
  });

  it("of an inner node is not one of a payload that spells it", async () => {
    const leaves = [bytes("a"), bytes("b")].map(leafHash);
    const [left, right] = leaves;
    if (left === undefined || right === undefined) throw new Error("no leaves");
    const spelled = Buffer.concat([left, right]);
    expect(leafHash(spelled)).not.toEqual(merkleTree(leaves).root);
  });
});

describe("a Merkle tree", () => {
  it("has the roots that RFC 6962 gives", () => {
    const inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const leaves = inputs.map((hex) => leafHash(Buffer.from(hex, "hex")));
    // The well-known test vectors of certificate-transparency's merkletree package.
    const roots: [leaves: number, root: string][] = [
      [1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"],
      [2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
      [3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"],
      [8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"],
    ];
    for (const [count, root] of roots) {
      expect(Buffer.from(merkleTree(leaves.slice(0, count)).root).toString("hex")).toBe(root);
    }
  });

  it("shows every leaf to be where it is, and nowhere else", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70 }), fc.nat(), fc.nat(), (size, a, b) => {
        const leaves = Array.from({ length: size }, (_, i) => leafHash(bytes(String(i))));
        const { root, inclusions } = merkleTree(leaves);
        const [i, j] = [a % size, b % size];
        const leaf = leaves[i];
        const inclusion = inclusions[j];
        if (leaf === undefined || inclusion === undefined) throw new Error("no such leaf");
        const found = rootOf(leaf, inclusion);
        expect(found !== undefined && Buffer.compare(found, root) === 0).toBe(i === j);
      }),
    );
  });
});

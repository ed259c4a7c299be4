import { hash } from "node:crypto";

/**
 * Merkle trees as RFC 6962, section 2.1, has them: one signature over the root stands for every leaf, and a leaf is
 * shown to be under it by about log2(leaves) hashes.
 */

export type Inclusion = {
  /** Counted from 0. */
  readonly index: number;
  readonly size: number;
  /** From the leaf's sibling up. */
  readonly path: readonly Uint8Array[];
};

const LEAF = Buffer.from([0]);
const NODE = Buffer.from([1]);
const HASH_BYTES = 32;

export function leafHash(data: Uint8Array): Uint8Array {
  return sha256(LEAF, data);
}

/** The root over the leaves' hashes, of which there is at least one, and each leaf's place under it. */
export function merkleTree(leaves: readonly Uint8Array[]): {
  readonly root: Uint8Array;
  readonly inclusions: Inclusion[];
} {
  const paths: Uint8Array[][] = leaves.map(() => []);
  const root = subtree(leaves, paths, 0, leaves.length);
  return { root, inclusions: paths.map((path, index) => ({ index, size: leaves.length, path })) };
}

/** The root that a leaf with this inclusion is under, or undefined when there can be none. RFC 9162, section 2.1.3.2. */
export function rootOf(leaf: Uint8Array, { index, size, path }: Inclusion): Uint8Array | undefined {
  if (index >= size) return undefined;
  let at = index;
  let last = size - 1;
  let root = leaf;
  for (const sibling of path) {
    if (last === 0) return undefined;
    if (at % 2 === 1 || at === last) {
      root = node(sibling, root);
      while (at % 2 === 0 && at !== 0) {
        at >>>= 1;
        last >>>= 1;
      }
    } else root = node(root, sibling);
    at >>>= 1;
    last >>>= 1;
  }
  return last === 0 ? root : undefined;
}

/** Of the leaves from `from` to before `to`; adds to each of their paths what is needed to get here. */
function subtree(leaves: readonly Uint8Array[], paths: Uint8Array[][], from: number, to: number): Uint8Array {
  const count = to - from;
  if (count === 1) return leaves[from] ?? new Uint8Array(HASH_BYTES);
  const split = from + 2 ** Math.floor(Math.log2(count - 1));
  const left = subtree(leaves, paths, from, split);
  const right = subtree(leaves, paths, split, to);
  for (let i = from; i < to; i++) paths[i]?.push(i < split ? right : left);
  return node(left, right);
}

function node(left: Uint8Array, right: Uint8Array): Uint8Array {
  return sha256(NODE, left, right);
}

function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  return hash("sha256", Buffer.concat(parts), "buffer");
}

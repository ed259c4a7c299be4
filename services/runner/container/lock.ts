import { readFileSync } from "node:fs";
import { z } from "zod";
import { RpcError } from "../../shared/rpc/errors.ts";

/** What sandbox-images/build.sh pinned: an image's id is the hash of all that is in it. */
export type ImageLock = ReadonlyMap<string, string>;

const hash = z.string().regex(/^sha256:[0-9a-f]{64}$/);
const lockSchema = z.strictObject({
  inputs: z.string(),
  images: z.record(z.string(), z.strictObject({ id: hash, sbom: hash })),
});

/**
 * Read anew for every run: it is a small file, and images may be rebuilt under a runner.
 * @throws RpcError FAILED_PRECONDITION when there is none, or it is not one.
 */
export function readImageLock(path: string): ImageLock {
  try {
    const { images } = lockSchema.parse(JSON.parse(readFileSync(path, "utf8")));
    return new Map(Object.entries(images).map(([name, { id }]) => [name, id]));
  } catch (error) {
    throw new RpcError({
      code: "FAILED_PRECONDITION",
      reason: "SANDBOX_UNAVAILABLE",
      message: "The sandbox images have not been built on this machine; run `make images`.",
      cause: error,
    });
  }
}

/** @throws RpcError FAILED_PRECONDITION for an image that is not in the lock. */
export function lockedImage(lock: ImageLock, name: string): string {
  const id = lock.get(name);
  if (id !== undefined) return id;
  const known = [...lock.keys()].join(", ");
  throw new RpcError({
    code: "FAILED_PRECONDITION",
    reason: "IMAGE_NOT_LOCKED",
    field: "sandbox.image",
    message: `No image ${name} is pinned in images.lock.json (it has ${known}); name one of these, or run \`make images\`.`,
  });
}

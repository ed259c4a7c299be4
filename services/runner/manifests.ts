import { parseJson } from "../shared/json.ts";
import { type Manifest, manifestSchema } from "../shared/manifest.ts";
import { RpcError } from "../shared/rpc/errors.ts";

/** Parsed manifests by digest; the least recently used is forgotten first. */
export class ManifestCache {
  readonly #capacity: number;
  readonly #byDigest = new Map<string, Manifest>();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /**
   * `digest` must be the SHA-256 of `json`: the permit check has seen to it.
   * @throws RpcError INVALID_ARGUMENT naming what is wrong in the manifest.
   */
  parse(digest: string, json: string): Manifest {
    const manifest = this.#byDigest.get(digest) ?? parseManifest(json);
    this.#byDigest.delete(digest);
    this.#byDigest.set(digest, manifest);
    for (const oldest of this.#byDigest.keys()) {
      if (this.#byDigest.size <= this.#capacity) break;
      this.#byDigest.delete(oldest);
    }
    return manifest;
  }
}

function parseManifest(json: string): Manifest {
  let problem: string;
  try {
    const parsed = manifestSchema.safeParse(parseJson(json));
    if (parsed.success) return parsed.data;
    problem = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`).join("; ");
  } catch (error) {
    problem = error instanceof Error ? error.message : String(error);
  }
  throw new RpcError({
    code: "INVALID_ARGUMENT",
    reason: "MANIFEST_INVALID",
    field: "manifest_json",
    message: `The manifest cannot be read (${problem}). Mend it in the catalog and load it again.`,
  });
}

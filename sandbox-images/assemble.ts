/**
 * assemble.ts NAME SCRATCH EPOCH: makes an image of SCRATCH/NAME.tar and an SBOM of SCRATCH/NAME.packages. What goes in
 * decides every byte that comes out, so the image's id is the hash of its content and of nothing else.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";

const [name = "", scratch = "", epoch = ""] = process.argv.slice(2);
const file = (suffix: string): string => join(scratch, `${name}.${suffix}`);
const created = new Date(Number(epoch) * 1000).toISOString();

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

const layer = await sha256(file("tar"));
const sandbox = {
  Env: ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/work", "LANG=C.UTF-8"],
  User: "65532:65532",
  WorkingDir: "/work",
  Entrypoint: ["/harness"],
  Labels: { "interlock.sandbox": name },
};
const config = JSON.stringify({
  architecture: { x64: "amd64", arm64: "arm64" }[process.arch as "x64" | "arm64"],
  os: "linux",
  created,
  config: name === "base" ? { Cmd: ["bash"] } : sandbox,
  rootfs: { type: "layers", diff_ids: [`sha256:${layer}`] },
  history: [{ created, created_by: "interlock sandbox-images/build.sh" }],
});
const id = createHash("sha256").update(config).digest("hex");

// The archive that `docker load` takes.
const folder = file("image");
mkdirSync(folder);
renameSync(file("tar"), join(folder, "layer.tar"));
writeFileSync(join(folder, `${id}.json`), config);
// A tag that never moves to another image: it only keeps this one from being pruned.
const tag = name === "base" ? "interlock/base:bookworm" : `interlock/sandbox-${name}:${id.slice(0, 12)}`;
writeFileSync(
  join(folder, "manifest.json"),
  JSON.stringify([{ Config: `${id}.json`, RepoTags: [tag], Layers: ["layer.tar"] }]),
);
execFileSync("tar", [
  "--create",
  "--file",
  file("image.tar"),
  "--directory",
  folder,
  "manifest.json",
  `${id}.json`,
  "layer.tar",
]);
writeFileSync(file("id"), `sha256:${id}`);
writeFileSync(file("cdx.json"), `${JSON.stringify(sbom(), null, 1)}\n`);

/** CycloneDX 1.5: every Debian package, and the harness. */
function sbom() {
  const packages = readFileSync(file("packages"), "utf8").trim().split("\n");
  const components = packages.map((line) => {
    const [packageName = "", version = "", architecture = "", source = "", sourceVersion = ""] = line.split("\t");
    const at = `${encodeURIComponent(packageName)}@${encodeURIComponent(version)}`;
    const purl = `pkg:deb/debian/${at}?arch=${architecture}&distro=bookworm`;
    const properties = [
      { name: "debian:source", value: source },
      { name: "debian:source-version", value: sourceVersion },
    ];
    return { type: "library", "bom-ref": purl, name: packageName, version, purl, properties };
  });
  const image = { type: "container", "bom-ref": tag, name: tag, version: `sha256:${id}` };
  // RFC 9562: a UUID whose bits are ours to choose, version 8.
  const [a, b, c, d, e] = [
    id.slice(0, 8),
    id.slice(8, 12),
    `8${id.slice(13, 16)}`,
    `8${id.slice(17, 20)}`,
    id.slice(20, 32),
  ];
  return {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    serialNumber: `urn:uuid:${a}-${b}-${c}-${d}-${e}`,
    version: 1,
    metadata: { timestamp: created, component: image },
    components: [...components, ...harnessComponent()],
  };
}

function harnessComponent() {
  if (name === "base") return [];
  const content = createHash("sha256")
    .update(readFileSync(join(scratch, "harness")))
    .digest("hex");
  return [
    {
      type: "application",
      "bom-ref": "harness",
      name: "interlock-harness",
      version: "1",
      hashes: [{ alg: "SHA-256", content }],
    },
  ];
}

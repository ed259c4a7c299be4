/**
 * Rules of the house that no linter has: who may import whom, and how large a file may grow. They are read from the
 * files themselves, so that a rule that reads nothing cannot pass: the count of what was read is asserted.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";

const ROOT = join(import.meta.dirname, "..");
const SERVICES = ["broker", "pdp", "ledger", "approvals", "runner"];
const MAX_LINES = 400;
/** Pure cores: what they may not reach. */
const CORE = /^services\/(?!cli\/).*\/(decider|decide|call|mask|session|control|chain|guard\/(?!.*\.test)[a-z-]+)\.ts$/;
const IMPURE = /^node:(?!crypto$|assert$)|^@grpc|^@nats|^dockerode$|^isolated-vm$|^casbin$|^pino$/;

type Source = { readonly path: string; readonly text: string; readonly imports: readonly string[] };

function* sources(folder: string): Generator<Source> {
  for (const entry of readdirSync(join(ROOT, folder), { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== "node_modules") yield* sources(path);
    } else if (path.endsWith(".ts") && !path.endsWith("_pb.ts")) {
      const text = readFileSync(join(ROOT, path), "utf8");
      const imports = [...text.matchAll(/(?:from|import\()\s*"([^"]+)"/g)].map((match) =>
        match[1]?.startsWith(".") ? normalize(join(dirname(path), match[1])) : (match[1] ?? ""),
      );
      yield { path, text, imports };
    }
  }
}

function serviceOf(path: string): string | undefined {
  return SERVICES.find((service) => path.startsWith(`services/${service}/`));
}

function* problems(source: Source): Generator<string> {
  const { path } = source;
  const lines = source.text.split("\n").length - 1;
  if (lines > MAX_LINES && !path.endsWith(".test.ts")) {
    yield `${path}: ${lines} lines. A file holds one idea in at most ${MAX_LINES}: move the second idea to a file named for it.`;
  }
  const own = serviceOf(path);
  for (const target of source.imports) {
    const other = serviceOf(target);
    if (own !== undefined && other !== undefined && other !== own) {
      yield `${path}: imports ${target}. A service never imports another: call it through its client in proto/, or move what both need to services/shared.`;
    }
    if (own !== undefined && /^services\/(interlock|cli)/.test(target)) {
      yield `${path}: imports ${target}. Services do not know their host: take what is needed as an option.`;
    }
    if (path.startsWith("services/shared/") && other !== undefined) {
      yield `${path}: imports ${target}. Shared code knows no service: move the code down, or turn the dependency round.`;
    }
    if (path.startsWith("services/") && !path.endsWith(".test.ts") && /^(test|bench|examples)\//.test(target)) {
      yield `${path}: imports ${target}. Services never import tests, benchmarks or examples.`;
    }
    if (CORE.test(path) && IMPURE.test(target)) {
      yield `${path}: imports ${target}. A pure core does no I/O: take the value as data from the file that performs it.`;
    }
  }
  if (
    CORE.test(path) &&
    /\b(Date\.now|Math\.random|performance\.now|await)\b/.test(source.text.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, ""))
  ) {
    yield `${path}: reads a clock, randomness or awaits. A pure core takes time and ids inside its command.`;
  }
}

const all = ["services", "bench", "examples", "test"].flatMap((folder) => [...sources(folder)]);
const cores = all.filter((source) => CORE.test(source.path));
const found = all.flatMap((source) => [...problems(source)]);
for (const problem of found) console.error(problem);
if (all.length < 50 || cores.length < 5) {
  console.error(
    `check-rules read only ${all.length} files and ${cores.length} cores in ${relative(".", ROOT) || "."}: mend its paths.`,
  );
  process.exit(1);
}
process.exit(found.length === 0 ? 0 : 1);

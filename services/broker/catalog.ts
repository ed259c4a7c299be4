import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import type { JsonObject } from "../shared/json.ts";
import { canonicalManifest, type Manifest, manifestSchema } from "../shared/manifest.ts";
import { type Models, pricesSchema } from "../shared/price.ts";
import { type FileProblem, FileProblems, readYaml } from "../shared/yaml-file.ts";
import { CodeFileProblem, withCode } from "./code-file.ts";

/** The tools that exist, each with its manifest and the check of its arguments. */
export type Catalog = {
  readonly size: number;
  readonly find: (name: string) => Tool | undefined;
  /** By name. */
  readonly list: () => readonly Tool[];
};

export type Tool = {
  readonly manifest: Manifest;
  /** The canonical manifest and its SHA-256, which permits name. */
  readonly json: string;
  readonly digest: string;
  /** The price list of models. */
  readonly models: Models;
  /** The first thing wrong with the arguments, or undefined. */
  readonly problemOf: (args: JsonObject) => ArgumentProblem | undefined;
};

/** `path` as `passengers[0].name`, empty for the whole. */
export type ArgumentProblem = { readonly path: string; readonly message: string };

/**
 * `units`: those that a price may be in; undefined when they are not known, and then the ledger refuses the others.
 * @throws FileProblems naming every file, line and field that is wrong.
 */
export function loadCatalog(directory: string, units?: readonly string[]): Catalog {
  const problems: FileProblem[] = [];
  const models = loadModels(join(dirname(directory), "prices.yaml"), problems);
  const tools = new Map<string, Tool>();
  for (const file of manifestFiles(directory)) {
    try {
      const tool = loadTool(file, models, units);
      const { name } = tool.manifest;
      if (tools.has(name))
        problems.push({ file, line: 1, field: "name", message: `${name} is in another file too; keep one.` });
      tools.set(name, tool);
    } catch (error) {
      if (!(error instanceof FileProblems)) throw error;
      problems.push(...error.problems);
    }
  }
  if (problems.length > 0) throw new FileProblems(problems);
  const list = [...tools.values()].sort((a, b) => (a.manifest.name < b.manifest.name ? -1 : 1));
  return { size: tools.size, find: (name) => tools.get(name), list: () => list };
}

function manifestFiles(directory: string): string[] {
  try {
    const names = readdirSync(directory).filter((name) => name.endsWith(".yaml"));
    return names.sort().map((name) => join(directory, name));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "unreadable";
    const message = `The directory of tool manifests cannot be read (${code}).`;
    throw new FileProblems([{ file: directory, line: undefined, field: "", message }]);
  }
}

/** Without the file no model has a price. */
function loadModels(file: string, problems: FileProblem[]): Models {
  if (!existsSync(file)) return {};
  try {
    return readYaml(file, pricesSchema).value.models;
  } catch (error) {
    if (!(error instanceof FileProblems)) throw error;
    problems.push(...error.problems);
    return {};
  }
}

function loadTool(file: string, models: Models, units: readonly string[] | undefined): Tool {
  const { value: written, lineOf } = readYaml(file, manifestSchema);
  const problem = (path: readonly string[], message: string): FileProblems =>
    new FileProblems([{ file, line: lineOf(path), field: path.join("."), message }]);
  const manifest = resolveCode(written, dirname(file), problem);
  if (manifest.arguments["type"] !== "object") {
    throw problem(["arguments"], "Set type: object; the arguments of a call are one JSON object.");
  }
  for (const [unit, rule] of Object.entries(manifest.price)) {
    if (units?.includes(unit) === false) {
      throw problem(["price", unit], `There is no such unit; use ${units.join(", ")}, or declare it in budgets.yaml.`);
    }
    if (typeof rule === "number" || rule.tokens === undefined) continue;
    if (unit !== "tokens" && Object.keys(models).length === 0) {
      throw problem(
        ["price", unit, "tokens"],
        "There is no price list: write prices.yaml beside the tools' directory.",
      );
    }
  }
  const properties = manifest.arguments["properties"] ?? {};
  const unknown = manifest.loops?.ignore.find((name) => !Object.hasOwn(properties as object, name));
  if (unknown !== undefined) {
    throw problem(["loops", "ignore"], `Remove ${unknown}: it is no argument of this tool.`);
  }
  const named = [...(manifest.provenance?.targets ?? []), ...(manifest.provenance?.prose ?? [])];
  const missing = named.find((name) => !JSON.stringify(manifest.arguments).includes(JSON.stringify(name)));
  if (missing !== undefined) throw problem(["provenance"], `Remove ${missing}: it is no argument of this tool.`);
  // One Ajv for each tool: a schema's $id and definitions are its own and cannot change another's.
  const ajv = addFormats.default(new Ajv2020({ strict: true, allErrors: false, allowUnionTypes: true }));
  let validate: ValidateFunction;
  try {
    validate = ajv.compile(manifest.arguments);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw problem(["arguments"], `It is no JSON Schema 2020-12 that can be checked: ${why}.`);
  }
  if ("$async" in validate) throw problem(["arguments"], "Remove $async: arguments are checked before anything else.");
  return {
    manifest,
    ...canonicalManifest(manifest),
    models,
    problemOf: (args) => (validate(args) ? undefined : toProblem(validate.errors?.[0])),
  };
}

function resolveCode(
  manifest: Manifest,
  directory: string,
  problem: (path: readonly string[], message: string) => FileProblems,
): Manifest {
  try {
    return withCode(manifest, directory);
  } catch (error) {
    if (!(error instanceof CodeFileProblem)) throw error;
    throw problem(error.field === "" ? ["sandbox"] : ["sandbox", error.field], error.message);
  }
}

function toProblem(error: ErrorObject | undefined): ArgumentProblem {
  if (error === undefined) return { path: "", message: "does not fit the tool's schema" };
  const base = pathOf(error.instancePath);
  const named = error.params as {
    missingProperty?: string;
    additionalProperty?: string;
    allowedValues?: readonly unknown[];
  };
  const inside = named.missingProperty ?? named.additionalProperty;
  const path = inside === undefined ? base : base === "" ? inside : `${base}.${inside}`;
  if (named.missingProperty !== undefined) return { path, message: "is missing" };
  if (named.additionalProperty !== undefined) return { path, message: "is not an argument of this tool" };
  const allowed = named.allowedValues === undefined ? "" : `: ${named.allowedValues.slice(0, 20).join(", ")}`;
  return { path, message: `${error.message ?? "does not fit the tool's schema"}${allowed}` };
}

/** A JSON pointer as people write it. */
function pathOf(pointer: string): string {
  const parts = pointer.split("/").slice(1);
  return parts
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .reduce((path, part) => (/^\d+$/.test(part) ? `${path}[${part}]` : path === "" ? part : `${path}.${part}`), "");
}

import { lstatSync, readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import { Script } from "node:vm";
import { sha256Hex } from "../shared/json.ts";
import { MAX_CODE_BYTES, type Manifest } from "../shared/manifest.ts";

/**
 * A tool's program in a file beside its manifest: JavaScript or TypeScript that defines main(input). The manifest pins
 * it by hash, so that who may change the file alone changes no tool.
 */

/** What is wrong, and in which field of `sandbox`. */
export class CodeFileProblem extends Error {
  readonly field: string;

  constructor(field: string, message: string) {
    super(message);
    this.field = field;
  }
}

/** The manifest with its program in it, as the runner gets it. @throws CodeFileProblem */
export function withCode(manifest: Manifest, directory: string): Manifest {
  const { sandbox } = manifest;
  if (sandbox.kind !== "isolate") return manifest;
  const { code, code_argument: argument, code_file: file, code_sha256: pinned } = sandbox;
  if ([code, argument, file].filter((way) => way !== undefined).length !== 1) {
    throw new CodeFileProblem("", "Give the program by exactly one of code, code_file and code_argument.");
  }
  if ((file === undefined) !== (pinned === undefined)) {
    throw new CodeFileProblem("code_sha256", "Set code_file and code_sha256 together; sha256sum prints the second.");
  }
  if (file === undefined) return manifest;
  const source = readSource(join(directory, file), file);
  const actual = sha256Hex(source);
  if (actual !== pinned) {
    const message = `${file} is not the file this manifest was written for: its SHA-256 is ${actual}. Review what has changed in it, then set code_sha256 to that.`;
    throw new CodeFileProblem("code_sha256", message);
  }
  return { ...manifest, sandbox: { ...sandbox, code: toProgram(source, file) } };
}

function readSource(path: string, file: string): string {
  try {
    const { isFile, size } = describeFile(path);
    if (!isFile) throw new CodeFileProblem("code_file", `${file} is no regular file; put the program there itself.`);
    if (size > MAX_CODE_BYTES) {
      throw new CodeFileProblem("code_file", `${file} is ${size} bytes; at most ${MAX_CODE_BYTES} are allowed.`);
    }
    return readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof CodeFileProblem) throw error;
    const code = (error as NodeJS.ErrnoException).code ?? "unreadable";
    throw new CodeFileProblem("code_file", `${file} cannot be read beside the manifest (${code}).`);
  }
}

/** Not what a link points at: that may be outside the policies, and change unseen. */
function describeFile(path: string): { isFile: boolean; size: number } {
  const stat = lstatSync(path);
  return { isFile: stat.isFile(), size: stat.size };
}

function toProgram(source: string, file: string): string {
  try {
    // Types become spaces, so a line and column of an error are those of the file.
    const code = file.endsWith(".ts") ? stripTypeScriptTypes(source) : source;
    const program = `${code}\nreturn main(input);`;
    new Script(`(async (input, console) => {${program}\n})`, { filename: file }); // read, never run
    if (!/\bfunction\s+main\b|\bmain\s*=/.test(code)) {
      throw new CodeFileProblem("code_file", `${file} defines no function main; define main(input).`);
    }
    return program;
  } catch (error) {
    if (error instanceof CodeFileProblem) throw error;
    const { message, stack = "" } = error as Error;
    const line = new RegExp(`${file.replaceAll(".", "\\.")}:(\\d+)`).exec(stack)?.[1];
    const at = line === undefined ? file : `${file}:${line}`;
    throw new CodeFileProblem("code_file", `${at} is no program: ${message.split("\n")[0]}.`);
  }
}

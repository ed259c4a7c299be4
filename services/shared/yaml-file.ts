import { readFileSync } from "node:fs";
import { isNode, LineCounter, parseDocument } from "yaml";
import type { z } from "zod";

/** One thing wrong with a file an operator wrote. */
export type FileProblem = {
  readonly file: string;
  /** Counted from 1; undefined when the whole file is meant. */
  readonly line: number | undefined;
  /** As `limits.wall_ms`; empty for the whole file. */
  readonly field: string;
  /** What is wrong and how to mend it. */
  readonly message: string;
};

/** Every problem of the files read, each with file, line, field and mend. */
export class FileProblems extends Error {
  override readonly name = "FileProblems";
  readonly problems: readonly FileProblem[];
  constructor(problems: readonly FileProblem[]) {
    super(problems.map(formatProblem).join("\n"));
    this.problems = problems;
  }
}

export function formatProblem(problem: FileProblem): string {
  const place = problem.line === undefined ? problem.file : `${problem.file}:${problem.line}`;
  return problem.field === "" ? `${place}: ${problem.message}` : `${place}: ${problem.field}: ${problem.message}`;
}

/** A parsed file, with the line each field stands on for problems that are found later. */
export type YamlFile<T> = { readonly value: T; readonly lineOf: (path: readonly PropertyKey[]) => number | undefined };

/** @throws FileProblems when the file is missing, is no YAML, has a key twice, or does not fit the schema. */
export function readYaml<S extends z.ZodType>(file: string, schema: S): YamlFile<z.output<S>> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "unreadable";
    throw new FileProblems([{ file, line: undefined, field: "", message: `The file cannot be read (${code}).` }]);
  }
  return parseYaml(file, text, schema);
}

/** @throws FileProblems, as readYaml. */
export function parseYaml<S extends z.ZodType>(file: string, text: string, schema: S): YamlFile<z.output<S>> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  if (document.errors.length > 0) {
    throw new FileProblems(
      document.errors.map((e) => ({
        file,
        line: lines.linePos(e.pos[0]).line,
        field: "",
        message: e.message.split("\n")[0] ?? "",
      })),
    );
  }
  const lineOf = (path: readonly PropertyKey[]): number | undefined => {
    for (let length = path.length; length >= 0; length--) {
      const node = document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
    }
    return undefined;
  };
  const parsed = schema.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (parsed.success) return { value: parsed.data, lineOf };
  throw new FileProblems(
    parsed.error.issues.map((issue) => ({
      file,
      line: lineOf(issue.path),
      field: issue.path.map(String).join("."),
      message: `${issue.message}.`,
    })),
  );
}

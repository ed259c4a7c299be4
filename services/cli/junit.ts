import type { TestResult } from "../pdp/table-tests.ts";

/** Table tests as JUnit XML, the form that CI systems read: one suite a file. */
export function toJunit(results: readonly TestResult[]): string {
  const suites = [...Map.groupBy(results, ({ test }) => test.file)].map(([file, members]) => {
    const failures = members.filter(({ failure }) => failure !== undefined).length;
    const cases = members.map(({ test, failure }) => {
      const head = `    <testcase classname=${quoted(file)} name=${quoted(test.name)} file=${quoted(file)} line="${test.line}"`;
      return failure === undefined
        ? `${head}/>`
        : `${head}>\n      <failure message=${quoted(failure)}/>\n    </testcase>`;
    });
    const head = `  <testsuite name=${quoted(file)} tests="${members.length}" failures="${failures}">`;
    return [head, ...cases, "  </testsuite>"].join("\n");
  });
  const failures = results.filter(({ failure }) => failure !== undefined).length;
  const head = `<testsuites name="interlock policy test" tests="${results.length}" failures="${failures}">`;
  return ['<?xml version="1.0" encoding="UTF-8"?>', head, ...suites, "</testsuites>", ""].join("\n");
}

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "\n": "&#10;",
  "\t": "&#9;",
};

/** As an attribute; what XML 1.0 cannot hold becomes the replacement character. */
function quoted(text: string): string {
  const held = text.toWellFormed().replace(/[^\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]/gu, "\uFFFD");
  return `"${held.replace(/[&<>"\n\t]/g, (c) => ESCAPES[c] ?? c)}"`;
}

import type { Row } from "./rows.ts";
export async function runNestedCase(_full: boolean, _say: (line: string) => void): Promise<Row[]> {
  return [];
}

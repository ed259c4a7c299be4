import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StatementLineSchema } from "../../proto/interlock/v1/ledger_pb.ts";
import { BY, type By, type Days, statementOf } from "./statement.ts";
import { invalid } from "./wire.ts";

export type StatementRequest = {
  readonly by: readonly string[];
  readonly from: string;
  readonly to: string;
  readonly unit: string;
  readonly top: number;
};

/** @throws RpcError INVALID_ARGUMENT naming the field. */
export function statementLines(days: Days, request: StatementRequest): MessageInitShape<typeof StatementLineSchema>[] {
  const by = request.by.map(parseBy);
  if (new Set(by).size < by.length) throw invalid("by", "name each once");
  const from = parseDay("from", request.from, "0000-01-01");
  const to = parseDay("to", request.to, "9999-12-31");
  if (from > to) throw invalid("from", "it is after `to`");
  const lines = statementOf(days, by, from, to)
    .filter(({ unit }) => request.unit === "" || unit === request.unit)
    .map(({ of, commits, ...line }) => ({ ...line, of: [...of], commits: BigInt(commits) }));
  if (request.top === 0) return lines;
  return lines.sort((a, b) => (a.actual === b.actual ? 0 : a.actual < b.actual ? 1 : -1)).slice(0, request.top);
}

function parseBy(text: string): By {
  const found = BY.find((known) => known === text);
  if (found === undefined) throw invalid("by", `use ${BY.join(", ")}`);
  return found;
}

function parseDay(field: string, text: string, otherwise: string): string {
  if (text === "") return otherwise;
  const time = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time) || new Date(time).toISOString().slice(0, 10) !== text) {
    throw invalid(field, "write a day as 2026-11-24");
  }
  return text;
}

/** One measured figure beside its baseline. */
export type Row = {
  readonly case: string;
  readonly metric: string;
  readonly ours: number;
  readonly baseline: number | null;
  readonly ratio: number | null;
  /** As text, e.g. "<= 3" on the ratio, "at most 15" on the figure itself; null where none is set. */
  readonly goal: string | null;
  readonly met: boolean | null;
};

export type Suite = (options: { readonly full: boolean; readonly say: (line: string) => void }) => Promise<Row[]>;

/** A row whose goal, if any, is on the ratio ours / baseline. */
export function ratioRow(
  name: string,
  metric: string,
  ours: number,
  baseline: number,
  goal?: { readonly at: "most" | "least"; readonly ratio: number },
): Row {
  const ratio = ours / baseline;
  if (goal === undefined) return { case: name, metric, ours, baseline, ratio, goal: null, met: null };
  const met = goal.at === "most" ? ratio <= goal.ratio : ratio >= goal.ratio;
  return {
    case: name,
    metric,
    ours,
    baseline,
    ratio,
    goal: `${goal.at === "most" ? "<=" : ">="} ${figure(goal.ratio)}`,
    met,
  };
}

/** A figure whose goal is a bound of its own. */
export function boundRow(name: string, metric: string, ours: number, most: number): Row {
  return { case: name, metric, ours, baseline: null, ratio: null, goal: `at most ${figure(most)}`, met: ours <= most };
}

/** A figure that stands by itself. */
export function plainRow(name: string, metric: string, ours: number): Row {
  return { case: name, metric, ours, baseline: null, ratio: null, goal: null, met: null };
}

export function formatRows(rows: readonly Row[]): string {
  const cells = [
    ["case", "metric", "ours", "baseline", "ratio", "goal", ""],
    ...rows.map((row) => [
      row.case,
      row.metric,
      figure(row.ours),
      row.baseline === null ? "" : figure(row.baseline),
      row.ratio === null ? "" : figure(row.ratio),
      row.goal ?? "",
      row.met === null ? "" : row.met ? "met" : "MISSED",
    ]),
  ];
  const widths = (cells[0] ?? []).map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  const left = new Set([0, 1, 6]);
  return cells
    .map((row) =>
      row.map((cell, i) => (left.has(i) ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  "),
    )
    .join("\n");
}

function figure(value: number): string {
  return value >= 100 ? Math.round(value).toString() : value.toPrecision(3);
}

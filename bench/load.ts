/** What a bounded closed-loop load measured. */
export type Load = {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly perSecond: number;
  readonly count: number;
};

/**
 * Keeps `concurrency` operations in flight for `durationMs`, after a warm-up that is not counted.
 * An operation that fails ends the run: a benchmark of errors would look fast.
 */
export async function measure(
  operation: (i: number) => Promise<unknown>,
  options: { readonly concurrency: number; readonly durationMs: number; readonly warmUpMs: number },
): Promise<Load> {
  let next = 0;
  const loop = async (until: number, record?: number[]): Promise<void> => {
    while (performance.now() < until) {
      const started = performance.now();
      await operation(next++);
      record?.push(performance.now() - started);
    }
  };
  const run = (until: number, record?: number[]) =>
    Promise.all(Array.from({ length: options.concurrency }, () => loop(until, record)));
  await run(performance.now() + options.warmUpMs);
  const latencies: number[] = [];
  const started = performance.now();
  await run(started + options.durationMs, latencies);
  const seconds = (performance.now() - started) / 1000;
  latencies.sort((a, b) => a - b);
  const at = (q: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * q))] ?? Number.NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99), perSecond: latencies.length / seconds, count: latencies.length };
}

/** The median run by p50, so that one disturbed run does not decide. */
export function medianOf(loads: readonly Load[]): Load {
  const sorted = [...loads].sort((a, b) => a.p50Ms - b.p50Ms);
  const median = sorted[Math.floor(sorted.length / 2)];
  if (median === undefined) throw new Error("no runs");
  return median;
}

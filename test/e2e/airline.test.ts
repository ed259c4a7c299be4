import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { PREFIX, recordingsOf } from "../../examples/airline/catalog.ts";
import { DEFAULT_RUNS } from "../../examples/airline/replay.ts";
import { readRuns } from "../../examples/airline/runs.ts";
import { canonicalJson } from "../../services/shared/json.ts";

const run = promisify(execFile);

type Replayed = {
  readonly runs: readonly {
    readonly calls: readonly {
      readonly tool: string;
      readonly verdict: string;
      readonly result?: string;
      readonly note: string;
    }[];
  }[];
  readonly summary: { readonly all: Readonly<Record<string, number>> };
};

it("replays the 100 recorded airline runs as governed calls", { timeout: 180_000 }, async () => {
  const recorded = readRuns(DEFAULT_RUNS);
  const first = recordingsOf(recorded);
  const { stdout } = await run("node", ["examples/airline/replay.ts", "--json", "--approve"], { maxBuffer: 64 << 20 });
  const { runs } = JSON.parse(stdout) as Replayed;

  expect(runs.length).toBe(100);
  expect(runs.map(({ calls }) => calls.map(({ tool }) => tool))).toEqual(
    recorded.map(({ calls }) => calls.map(({ tool }) => tool)),
  );
  const all = runs.flatMap(({ calls }) => calls);
  expect(all.length).toBe(577);
  expect(all.filter(({ verdict }) => verdict === "error")).toEqual([]);
  // Real agents' calls: the tools' schemas fit them all, and no successful run is held up by a loop.
  expect(all.filter(({ verdict }) => ["schema", "denied", "loop"].includes(verdict))).toEqual([]);
  expect(all.some(({ verdict }) => verdict === "approval")).toBe(true);
  expect(all.some(({ verdict }) => verdict === "budget")).toBe(true);

  const unlike = runs.flatMap(({ calls }, i) =>
    calls.flatMap((call, j) => {
      const asked = recorded[i]?.calls[j];
      if (call.result !== "different" || asked === undefined) return [];
      return [first.get(PREFIX + asked.tool)?.get(canonicalJson(asked.args)) === asked.result];
    }),
  );
  // A tool keeps nothing between calls: only what was answered differently in another run may differ.
  expect(unlike.filter((wasFirst) => wasFirst)).toEqual([]);
  expect(unlike.length).toBeLessThanOrEqual(1);
});

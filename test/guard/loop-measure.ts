import { join } from "node:path";
import { type RecordedRun, readRuns } from "../../examples/airline/runs.ts";
import type { LoopLimits, LoopRule } from "../../services/broker/guard/loops.ts";
import type { JsonObject } from "../../services/shared/json.ts";
import { type Manifest, manifestSchema } from "../../services/shared/manifest.ts";
import { readYaml } from "../../services/shared/yaml-file.ts";
import { LOOP_KINDS, type LoopKind, loopOf, type Noise } from "./generated-loops.ts";
import { LoopWalk } from "./loop-walk.ts";

/** What the loop rules say to recorded honest work and to generated loops, counted. */

export type Told = "warned" | "ask" | "stopped";

/** Of the runs of one group, how many had at least one such verdict, by rule. */
export type RunCounts = {
  readonly runs: number;
  readonly told: ReadonlyMap<`${LoopRule} ${Told}`, number>;
  readonly interrupted: number;
};

const ROOT = join(import.meta.dirname, "../..");

export function measureAirline(limits: LoopLimits): { readonly succeeded: RunCounts; readonly failed: RunCounts } {
  const runs = readRuns(join(ROOT, "test/data/tau-airline/runs.jsonl"));
  const count = (group: readonly RecordedRun[]): RunCounts => {
    const told = new Map<`${LoopRule} ${Told}`, number>();
    let interrupted = 0;
    for (const run of group) {
      const verdicts = verdictsOf(run, limits);
      for (const key of verdicts) told.set(key, (told.get(key) ?? 0) + 1);
      if ([...verdicts].some((key) => !key.endsWith("warned"))) interrupted++;
    }
    return { runs: group.length, told, interrupted };
  };
  return { succeeded: count(runs.filter((run) => run.succeeded)), failed: count(runs.filter((run) => !run.succeeded)) };
}

/** The agent is deaf: it goes on as recorded, whatever it is told. */
function verdictsOf(run: RecordedRun, limits: LoopLimits): ReadonlySet<`${LoopRule} ${Told}`> {
  const walk = new LoopWalk(limits);
  const found = new Set<`${LoopRule} ${Told}`>();
  for (const { tool, args, result } of run.calls) {
    const resultJson = JSON.stringify(result ?? "");
    const verdict = walk.take({ manifest: manifestOf(tool), args: args as JsonObject, resultJson });
    if (verdict.level !== "clear" && verdict.level !== "repeating") found.add(`${verdict.rule} ${verdict.level}`);
  }
  return found;
}

const manifests = new Map<string, Manifest>();

function manifestOf(tool: string): Manifest {
  const known = manifests.get(tool);
  if (known !== undefined) return known;
  const { value } = readYaml(join(ROOT, `policies/airline/tools/${tool}.yaml`), manifestSchema);
  manifests.set(tool, value);
  return value;
}

export type LoopCounts = {
  readonly kind: LoopKind;
  readonly seeds: number;
  /** Interrupted no later than the last call of the third turn. */
  readonly byThirdTurn: number;
  /** The median of how many of the loop's own calls ran before the first was refused or asked about. */
  readonly ranBefore: number;
  /** Other calls that were refused or asked about before it. */
  readonly noiseHit: number;
};

export function measureLoops(limits: LoopLimits, seeds: number, noise: Noise): LoopCounts[] {
  return LOOP_KINDS.map((kind) => {
    const ran: number[] = [];
    let byThirdTurn = 0;
    let noiseHit = 0;
    for (let seed = 1; seed <= seeds; seed++) {
      const { caughtIn, before, noiseHits } = walkLoop(kind, seed, noise, limits);
      if (caughtIn <= 3) byThirdTurn++;
      ran.push(before);
      noiseHit += noiseHits;
    }
    const ranBefore = ran.toSorted((a, b) => a - b)[Math.floor(ran.length / 2)] ?? Number.NaN;
    return { kind, seeds, byThirdTurn, ranBefore, noiseHit };
  });
}

function walkLoop(kind: LoopKind, seed: number, noise: Noise, limits: LoopLimits) {
  const walk = new LoopWalk(limits);
  let before = 0;
  let noiseHits = 0;
  for (const step of loopOf(kind, seed, noise)) {
    const { level } = walk.take(step);
    const interrupted = level === "ask" || level === "stopped";
    if (step.turn === 0) noiseHits += Number(interrupted);
    else if (interrupted) return { caughtIn: step.turn, before, noiseHits };
    else before++;
  }
  return { caughtIn: Number.POSITIVE_INFINITY, before, noiseHits };
}

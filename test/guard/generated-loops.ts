import { randomUUID } from "node:crypto";
import { type Step, toolOf } from "./loop-walk.ts";

/**
 * Loops as agents fall into them, made from a seed: each turn's calls in order, with other calls between. The other
 * calls are honest work: other arguments, other answers, of the same tools and of others.
 */

export const LOOP_KINDS = [
  "the same call, the same answer",
  "the same call, an answer with a new time and id",
  "a call with a new id and time each turn, the same answer",
  "a call with a declared volatile argument",
  "a write, the same answer",
  "cycle of 2",
  "cycle of 3",
  "cycle of 4",
  "cycle of 5",
  "cycle of 6",
  "cycle of 2, answers change",
  "cycle of 3, answers change",
  "cycle of 6, answers change",
  "cycle of 2, near repeats",
  "a tool that fails, other arguments each time",
] as const;
export type LoopKind = (typeof LOOP_KINDS)[number];

/** Calls between the loop's own: how many of all calls, and whether some of them change something. */
export type Noise = { readonly share: number; readonly deeds: boolean };

/** `turn` counts from 1; 0 is noise. `last`: it ends its turn. */
export type LoopStep = Step & { readonly turn: number; readonly last: boolean };

const READ = toolOf("docs.read");
const SEARCH = toolOf("docs.search");
const WRITE = toolOf("docs.append", { effects: ["writes"] });
const FEED = toolOf("feed.next", { loops: { ignore: ["position"] } });
const OPEN = toolOf("files.open");
const SAVE = toolOf("files.save", { effects: ["writes"] });
const TURNS = 8;

export function loopOf(kind: LoopKind, seed: number, noise: Noise): LoopStep[] {
  const random = mulberry32(seed);
  const period = Number(/cycle of (\d)/.exec(kind)?.[1] ?? 1);
  const steps: LoopStep[] = [];
  let others = 0;
  for (let turn = 1; turn <= TURNS; turn++) {
    for (let place = 0; place < period; place++) {
      while (random() < noise.share) {
        steps.push({ ...otherOf(`${seed}-${others++}`, noise.deeds, random), turn: 0, last: false });
      }
      steps.push({ ...callOf(kind, place, turn, random), turn, last: place === period - 1 });
    }
  }
  return steps;
}

function callOf(kind: LoopKind, place: number, turn: number, random: () => number): Step {
  const time = new Date(1_700_000_000_000 + turn * 61_000 + Math.floor(random() * 1000)).toISOString();
  const same = { manifest: READ, args: { id: `page-${place}` }, resultJson: `{"text":"page ${place} says nothing"}` };
  switch (kind) {
    case "the same call, an answer with a new time and id":
      return { ...same, resultJson: `{"text":"nothing","at":"${time}","request":"${randomUUID()}"}` };
    case "a call with a new id and time each turn, the same answer":
    case "cycle of 2, near repeats":
      return { ...same, args: { ...same.args, request: randomUUID(), at: time } };
    case "a call with a declared volatile argument":
      return { ...same, manifest: FEED, args: { feed: "news", position: `p${turn}` } };
    case "a write, the same answer":
      return { ...same, manifest: WRITE, args: { line: "done" }, resultJson: '"ok"' };
    case "cycle of 2, answers change":
    case "cycle of 3, answers change":
    case "cycle of 6, answers change":
      return { ...same, resultJson: `{"text":"page ${place}, edition ${turn}"}` };
    case "a tool that fails, other arguments each time":
      return { manifest: SEARCH, args: { text: `try ${turn}` }, resultJson: "", error: "SyntaxError: no such field" };
    case "the same call, the same answer":
    case "cycle of 2":
    case "cycle of 3":
    case "cycle of 4":
    case "cycle of 5":
    case "cycle of 6":
      return same;
  }
}

function otherOf(name: string, deeds: boolean, random: () => number): Step {
  const tools = deeds ? [READ, OPEN, READ, SAVE] : [READ, OPEN];
  const manifest = tools[Math.floor(random() * tools.length)] ?? READ;
  return { manifest, args: { id: `other-${name}` }, resultJson: `{"text":"something new ${name}"}` };
}

/** Mulberry32, Tommy Ettinger 2017: small, and the same everywhere. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

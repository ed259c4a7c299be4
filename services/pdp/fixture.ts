import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Facts, NOTHING_SPENT } from "./facts.ts";
import { buildPolicy, loadModel, type Policy } from "./load.ts";

/** For tests of this room: policies from text, and facts that differ from an ordinary call in one thing. */

export const POLICIES = new URL("../../policies/", import.meta.url).pathname;

/** Calls `use` with a policy directory that has these files and the project's own model, unless one is given. */
export async function withPolicyDir<T>(files: Record<string, string>, use: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), "interlock-pdp-"));
  try {
    if (files["model.conf"] === undefined) await copyFile(join(POLICIES, "model.conf"), join(dir, "model.conf"));
    for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
    return await use(dir);
  } finally {
    await rm(dir, { recursive: true });
  }
}

const model = loadModel(POLICIES);

/** A policy of one file, policy.csv, of these lines. */
export async function policyOf(...lines: readonly string[]): Promise<Policy> {
  return await buildPolicy(await model, new Map([["policy.csv", lines.join("\n")]]));
}

export type FactsChange = Partial<Omit<Facts, "tool">> & { readonly tool?: Partial<Facts["tool"]> };

/** A clear, low-impact call of `t` agent `a`; 2026-03-04 was a Wednesday. */
export function factsOf(change: FactsChange = {}): Facts {
  const { tool, ...rest } = change;
  return {
    tenant: "t",
    agent: "a",
    session: "s",
    user: "",
    args: {},
    labels: [],
    loop: "clear",
    chain: [],
    spent: NOTHING_SPENT,
    timeMs: Date.UTC(2026, 2, 4, 10, 30),
    ...rest,
    tool: { name: "orders.refund", version: "1.0.0", impact: "low", effects: [], groups: [], ...tool },
  };
}

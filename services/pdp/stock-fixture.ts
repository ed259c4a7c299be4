import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Enforcer, newEnforcer, newModelFromString, StringAdapter } from "casbin";
import { toolFunctions } from "./casbin.ts";
import { parseCsvLine } from "./csv.ts";
import { OUTCOMES, type Outcome } from "./decide.ts";
import { type Facts, toRequest } from "./facts.ts";
import { POLICIES } from "./fixture.ts";
import { FUNCTIONS } from "./functions.ts";

/**
 * What the model and the rules mean in stock node-casbin alone, without index, cache or checked conditions: one enforcer
 * for each outcome, asked from the strictest. For tests and benchmarks.
 */
export async function stockCasbin(lines: readonly string[]): Promise<(facts: Facts) => Outcome> {
  const modelText = readFileSync(join(POLICIES, "model.conf"), "utf8");
  const enforcers = new Map<Outcome, Enforcer>();
  for (const outcome of OUTCOMES) {
    const kept = lines.filter((line) => {
      const parsed = parseCsvLine(line);
      return parsed.kind === "fields" && (parsed.fields[0] !== "p" || parsed.fields[4] === outcome);
    });
    const enforcer = await newEnforcer(newModelFromString(modelText), new StringAdapter(kept.join("\n")));
    for (const [name, call] of Object.entries(toolFunctions())) await enforcer.addFunction(name, call);
    for (const [name, { call }] of Object.entries(FUNCTIONS)) await enforcer.addFunction(name, call);
    enforcers.set(outcome, enforcer);
  }
  return (facts) => {
    const request = Object.values(toRequest(facts));
    const strictest = OUTCOMES.toReversed().find((outcome) => enforcers.get(outcome)?.enforceSync(...request));
    return strictest ?? "deny";
  };
}

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runCallSuite } from "./call.ts";
import { runContainerSuite } from "./container.ts";
import { runGuardSuite } from "./guard.ts";
import { runIsolateSuite } from "./isolate.ts";
import { runJournalSuite } from "./journal.ts";
import { runLedgerSuite } from "./ledger.ts";
import { runPolicySuite } from "./policy.ts";
import { formatRows, type Suite } from "./rows.ts";

/**
 * `make bench`: each suite prints a table and writes bench/results/<suite>.json. What is ours is measured beside its
 * baseline in the same run, because only their ratio means something on a machine that others share.
 */
const SUITES: Record<string, Suite> = {
  call: runCallSuite,
  guard: runGuardSuite,
  isolate: runIsolateSuite,
  container: runContainerSuite,
  journal: runJournalSuite,
  ledger: runLedgerSuite,
  policy: runPolicySuite,
};

const { values } = parseArgs({ options: { suite: { type: "string" }, full: { type: "boolean", default: false } } });
const chosen = values.suite === undefined ? Object.keys(SUITES) : [values.suite];
for (const name of chosen) {
  const suite = SUITES[name];
  if (suite === undefined) {
    console.error(`bench: there is no suite "${name}"; there are ${Object.keys(SUITES).join(", ")}.`);
    process.exit(2);
  }
  const started = performance.now();
  const rows = await suite({ full: values.full, say: (line) => console.log(line) });
  const folder = join(import.meta.dirname, "results");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(rows, null, 2)}\n`);
  console.log(`\n${name} (${Math.round((performance.now() - started) / 1000)} s)\n${formatRows(rows)}`);
}

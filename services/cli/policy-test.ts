import { watch } from "node:fs";
import { readdir, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { setTimeout } from "node:timers/promises";
import { type Command, InvalidArgumentError } from "commander";
import type { Coverage } from "../pdp/coverage.ts";
import type { TestResult } from "../pdp/table-tests.ts";
import { FileProblems, formatProblem } from "../shared/yaml-file.ts";
import { EXIT } from "./exit.ts";
import { toJunit } from "./junit.ts";
import { jsonLine, printable } from "./print.ts";
import { globalsOf } from "./session.ts";

/** `policy test` and `policy sign`: what needs no running Interlock. */
export function addPolicyTest(policy: Command): void {
  policy
    .command("test [dir]")
    .description("run the table tests of a policies directory, and say which rules they hold in place")
    .option("--junit <file>", "write the results as JUnit XML too")
    .option("--min-coverage <percent>", "fail when fewer of the rules match in a test", percent)
    .option("--min-noticed <percent>", "fail when fewer of the mutants are noticed", percent)
    .option("--watch", "run them again whenever a file changes")
    .action(async (dir: string | undefined, flags: TestFlags, command: Command) => {
      const folder = dir ?? "policies";
      const { json } = globalsOf(command);
      if (flags.watch === true) return await watchTests(folder, flags, json);
      if (!(await report(await run(folder), flags, json))) process.exitCode = EXIT.failed;
    });
  policy
    .command("sign [dir]")
    .description("sign a policies directory as it is now: writes policy.sig")
    .requiredOption("--key <file>", "PEM of an Ed25519 private key")
    .action(async (dir: string | undefined, flags: { key: string }, command: Command) => {
      const folder = dir ?? "policies";
      const [{ readBundle, SIGNATURE_FILE }, { signBundle }, { readSignerFile }] = await Promise.all([
        import("../pdp/bundle.ts"),
        import("../pdp/signed.ts"),
        import("../shared/state-dir.ts"),
      ]);
      const signer = readSignerFile(flags.key);
      await writeFile(`${folder}/${SIGNATURE_FILE}`, await signBundle(await readBundle(folder), signer));
      if (globalsOf(command).json) console.log(jsonLine({ keyId: signer.keyId, file: `${folder}/${SIGNATURE_FILE}` }));
      else console.log(`Signed by key ${signer.keyId}: ${folder}/${SIGNATURE_FILE}`);
    });
}

type TestFlags = { junit?: string; minCoverage?: number; minNoticed?: number; watch?: boolean };

type Run = { readonly results: readonly TestResult[]; readonly coverage: Coverage; readonly ms: number };

function percent(text: string): number {
  const value = Number(text);
  if (text.trim() !== "" && value >= 0 && value <= 100) return value;
  throw new InvalidArgumentError("Give a number from 0 to 100.");
}

/** @throws FileProblems for what cannot be read as rules, tools or tests. */
async function run(folder: string): Promise<Run> {
  const [{ loadCatalog }, { loadPolicy }, { parseTests, runTests }, { coverageOf }] = await Promise.all([
    import("../broker/catalog.ts"),
    import("../pdp/load.ts"),
    import("../pdp/table-tests.ts"),
    import("../pdp/coverage.ts"),
  ]);
  const started = performance.now();
  const policy = await loadPolicy(folder);
  const tools = loadCatalog(`${folder}/tools`)
    .list()
    .map(({ manifest }) => manifest);
  const results = await runTests(policy, await parseTests(policy.bundle, tools, folder));
  if (results.length === 0) {
    const message = "There are no table tests; write tests/<name>.yaml, as policies/README.md shows.";
    throw new FileProblems([{ file: folder, line: undefined, field: "tests", message }]);
  }
  return { results, coverage: coverageOf(policy, results), ms: performance.now() - started };
}

/** Prints what came of it. False when a test fails, or the tests hold too little in place. */
async function report({ results, coverage, ms }: Run, flags: TestFlags, json: boolean): Promise<boolean> {
  const failed = results.filter(({ failure }) => failure !== undefined);
  const { rules, uncovered, mutants, survivors } = coverage;
  const covered = share(rules - uncovered.length, rules);
  const noticed = share(mutants - survivors.length, mutants);
  const short = [
    ...(covered < (flags.minCoverage ?? 0)
      ? [`The tests match ${covered} % of the rules; --min-coverage asks for ${flags.minCoverage}.`]
      : []),
    ...(noticed < (flags.minNoticed ?? 0)
      ? [`The tests notice ${noticed} % of the mutants; --min-noticed asks for ${flags.minNoticed}.`]
      : []),
  ];
  if (flags.junit !== undefined) await writeFile(flags.junit, toJunit(results));
  if (json) {
    const failures = failed.map(({ test: { file, line, name }, failure }) => ({ file, line, name, failure }));
    console.log(jsonLine({ tests: results.length, failed: failures.length, failures, coverage }));
  } else {
    for (const { test, failure } of failed) {
      console.log(printable(`FAILED ${test.file}:${test.line}: ${test.name}\n  ${failure}`));
    }
    for (const at of uncovered) console.log(`uncovered ${at}: no test matches this rule`);
    for (const { at, text } of survivors) {
      if (!uncovered.includes(at)) console.log(printable(`unnoticed ${at}: no test fails ${text}`));
    }
    for (const sentence of short) console.log(sentence);
    console.log(
      `${results.length - failed.length} passed, ${failed.length} failed (${Math.round(ms)} ms); ${covered} % of ${rules} rules covered, ${noticed} % of ${mutants} mutants noticed`,
    );
  }
  return failed.length === 0 && short.length === 0;
}

function share(part: number, whole: number): number {
  return whole === 0 ? 100 : Math.floor((1000 * part) / whole) / 10;
}

/** A moment for an editor to finish writing. */
const SETTLE_MS = 100;

/** @throws FileProblems once the folder is not there: then there is nothing to wait for. */
async function watchTests(folder: string, flags: TestFlags, json: boolean): Promise<void> {
  const written = flags.junit === undefined ? undefined : resolve(flags.junit);
  const once = async (): Promise<void> => {
    try {
      await report(await run(folder), flags, json);
    } catch (error) {
      if (!(error instanceof FileProblems)) throw error;
      for (const problem of error.problems) console.log(printable(formatProblem(problem)));
    }
  };
  await needFolder(folder);
  let changed = Promise.withResolvers<void>();
  const watcher = watch(folder, { recursive: true }, (_, name) => {
    if (name === null || resolve(folder, name) !== written) changed.resolve();
  });
  process.once("SIGINT", () => {
    watcher.close();
    process.exit(EXIT.ok);
  });
  for (;;) {
    changed = Promise.withResolvers<void>();
    await once();
    if (!json) console.log(`Watching ${folder}; interrupt to end.`);
    await changed.promise;
    await setTimeout(SETTLE_MS);
    await needFolder(folder);
  }
}

async function needFolder(folder: string): Promise<void> {
  await readdir(folder).catch(({ code }: NodeJS.ErrnoException) => {
    const message = `The directory cannot be read (${code}); give the one that holds model.conf.`;
    throw new FileProblems([{ file: folder, line: undefined, field: "", message }]);
  });
}

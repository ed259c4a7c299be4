import type { Command } from "commander";
import { type FileProblem, FileProblems, formatProblem } from "../shared/yaml-file.ts";
import { addPolicyAsk } from "./policy-ask.ts";
import { addPolicyChange } from "./policy-change.ts";
import { addPolicyTest } from "./policy-test.ts";
import { jsonLine, printable } from "./print.ts";
import { globalsOf } from "./session.ts";

/** `policy ...`: rules checked and tested before they are live, changed, and explained afterwards. */
export function addPolicy(program: Command): void {
  const policy = program.command("policy").description("check, test, change and explain the rules");
  addCheck(policy);
  addPolicyTest(policy);
  addPolicyChange(policy);
  addPolicyAsk(policy);
}

function addCheck(policy: Command): void {
  policy
    .command("check [dir]")
    .description("read a policies directory as the services would: rules, tools, budgets")
    .action(async (dir: string | undefined, _: unknown, command: Command) => {
      const folder = dir ?? "policies";
      const [{ loadCatalog }, { loadBudgets }, { loadPolicy }, { checkPolicy }] = await Promise.all([
        import("../broker/catalog.ts"),
        import("../ledger/budgets.ts"),
        import("../pdp/load.ts"),
        import("../pdp/check.ts"),
      ]);
      const problems: FileProblem[] = [];
      const gather = async <T>(read: () => T | Promise<T>): Promise<T | undefined> => {
        try {
          return await read();
        } catch (error) {
          if (!(error instanceof FileProblems)) throw error;
          problems.push(...error.problems);
          return undefined;
        }
      };
      const rules = await gather(() => loadPolicy(folder));
      const budgets = await gather(() => loadBudgets(`${folder}/budgets.yaml`));
      const catalog = await gather(() => loadCatalog(`${folder}/tools`, budgets?.units));
      const tools = catalog?.list().map(({ manifest }) => manifest);
      const found = rules === undefined ? [] : await checkPolicy(rules, tools);
      const placed = found.map((finding) => ({ ...finding, file: `${folder}/${finding.file}` }));
      problems.push(...placed.filter(({ severity }) => severity === "error"));
      if (problems.length > 0) throw new FileProblems(problems);
      const warnings = placed.filter(({ severity }) => severity === "warning");
      const counts = { rules: rules?.countRules(), tools: catalog?.size, budgets: budgets?.size };
      if (globalsOf(command).json) {
        console.log(jsonLine({ revision: rules?.revision, ...counts, warnings }));
        return;
      }
      for (const warning of warnings) console.log(printable(`warning: ${formatProblem(warning)}`));
      const sums = `${counts.rules} rules, ${counts.tools} tools, ${counts.budgets} budgets`;
      console.log(`${folder} is sound: ${sums}; revision ${rules?.revision}`);
    });
}

import type { Command } from "commander";
import { type FileProblem, FileProblems } from "../shared/yaml-file.ts";
import { jsonLine } from "./print.ts";
import { globalsOf } from "./session.ts";

/** `policy check`: everything an operator writes, read as the services would read it. */
export function addPolicy(program: Command): void {
  const policy = program.command("policy").description("check what operators write, before it is live");
  policy
    .command("check [dir]")
    .description("read a policies directory as the services would: rules, tools, budgets")
    .action(async (dir: string | undefined, _: unknown, command: Command) => {
      const folder = dir ?? "policies";
      const [{ loadCatalog }, { loadBudgets }, { loadPolicy }] = await Promise.all([
        import("../broker/catalog.ts"),
        import("../ledger/budgets.ts"),
        import("../pdp/load.ts"),
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
      const catalog = await gather(() => loadCatalog(`${folder}/tools`));
      const budgets = await gather(() => loadBudgets(`${folder}/budgets.yaml`));
      if (problems.length > 0) throw new FileProblems(problems);
      const found = {
        revision: rules?.revision,
        rules: rules?.countRules(),
        tools: catalog?.size,
        budgets: budgets?.size,
      };
      if (globalsOf(command).json) console.log(jsonLine(found));
      else
        console.log(
          `${folder} is sound: ${found.rules} rules, ${found.tools} tools, ${found.budgets} budgets; revision ${found.revision}`,
        );
    });
}

import type { Command } from "commander";
import { CliError } from "./exit.ts";

/** `completion bash|zsh|fish`: a script made from the commands themselves, so that it cannot fall behind them. */
export function addCompletion(program: Command): void {
  program
    .command("completion <shell>")
    .description("print a completion script for bash, zsh or fish")
    .addHelpText(
      "after",
      "\nbash: source <(interlock completion bash)\nzsh:  source <(interlock completion zsh)\nfish: interlock completion fish | source",
    )
    .action((shell: string) => {
      const words = [...paths(program)];
      switch (shell) {
        case "bash":
          console.log(bash(words));
          return;
        case "zsh":
          console.log(`autoload -U +X bashcompinit && bashcompinit\n${bash(words)}`);
          return;
        case "fish":
          console.log(fish(words));
          return;
        default:
          throw new CliError(`no completion for "${shell}": it is bash, zsh or fish.`);
      }
    });
}

/** What may follow after each command path: subcommands and options, with what they mean. */
type Words = { readonly path: string; readonly next: readonly { readonly word: string; readonly meaning: string }[] };

function* paths(command: Command, path = ""): Generator<Words> {
  const next = [
    ...command.commands.map((child) => ({ word: child.name(), meaning: child.description() })),
    ...command.options.map((option) => ({ word: option.long ?? option.flags, meaning: option.description })),
  ];
  yield { path, next };
  for (const child of command.commands) yield* paths(child, path === "" ? child.name() : `${path} ${child.name()}`);
}

function bash(words: readonly Words[]): string {
  const cases = words.map(({ path, next }) => `    "${path}") next="${next.map((item) => item.word).join(" ")}" ;;`);
  return `_interlock() {
  local path="" word next=""
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ $word == -* ]] || path="\${path:+$path }$word"
  done
  case "$path" in
${cases.join("\n")}
  esac
  COMPREPLY=($(compgen -W "$next" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -F _interlock interlock`;
}

function fish(words: readonly Words[]): string {
  const quote = (text: string) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines = ["complete -c interlock -f"];
  for (const { path, next } of words) {
    const seen =
      path === ""
        ? "__fish_use_subcommand"
        : path
            .split(" ")
            .map((w) => `__fish_seen_subcommand_from ${w}`)
            .join("; and ");
    for (const { word, meaning } of next) {
      const what = word.startsWith("--") ? `-l ${word.slice(2)}` : `-a ${quote(word)}`;
      lines.push(`complete -c interlock -n ${quote(seen)} ${what} -d ${quote(meaning)}`);
    }
  }
  return lines.join("\n");
}

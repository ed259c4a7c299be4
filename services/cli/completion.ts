import type { Command, Option } from "commander";
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
      const script = SCRIPTS[shell];
      if (script === undefined) throw new CliError(`no completion for "${shell}": it is bash, zsh or fish.`);
      console.log(script([...placesOf(program)]));
    });
}

/** Where one may be on a command line, and what may follow there. */
type Place = {
  /** `approvals list`; empty before the first command. */
  readonly path: string;
  readonly commands: readonly Command[];
  /** Its own and those of every command above it. */
  readonly options: readonly Option[];
};

function* placesOf(command: Command, path = "", above: readonly Option[] = []): Generator<Place> {
  const options = [...above, ...command.options];
  yield { path, commands: command.commands, options };
  for (const child of command.commands) {
    yield* placesOf(child, path === "" ? child.name() : `${path} ${child.name()}`, options);
  }
}

const SCRIPTS: Readonly<Record<string, (places: readonly Place[]) => string>> = { bash, zsh, fish };

/** Common to bash and zsh: from the words so far, `at` is the place, and `next` what may follow. */
function walk(places: readonly Place[], words: string): string {
  const takesValue = new Set(places.flatMap(({ options }) => options.filter(takesWord).flatMap(names)));
  const next = ({ commands, options }: Place) =>
    [...commands.map((command) => command.name()), ...options.map((option) => option.long), "--help"].join(" ");
  return `  local at="" word="" next="" value=""
  for word in ${words}; do
    if [[ -n $value ]]; then value=""; continue; fi
    case "$word" in
      ${[...takesValue].join("|")}) value=1; continue ;;
      -*) continue ;;
    esac
    case "\${at:+$at }$word" in
      ${places.flatMap(({ path }) => (path === "" ? [] : [`"${path}"`])).join("|")}) at="\${at:+$at }$word" ;;
    esac
  done
  case "$at" in
${places.map((place) => `    "${place.path}") next="${next(place)}" ;;`).join("\n")}
  esac`;
}

function bash(places: readonly Place[]): string {
  return `_interlock() {
${walk(places, `"\${COMP_WORDS[@]:1:COMP_CWORD-1}"`)}
  COMPREPLY=()
  if [[ -z $value ]]; then COMPREPLY=($(compgen -W "$next" -- "\${COMP_WORDS[COMP_CWORD]}")); fi
}
complete -o default -F _interlock interlock`;
}

function zsh(places: readonly Place[]): string {
  return `#compdef interlock
_interlock() {
${walk(places, `"\${(@)words[2,CURRENT-1]}"`)}
  if [[ -n $value ]]; then _files; else compadd -- \${=next}; fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _interlock interlock`;
}

function fish(places: readonly Place[]): string {
  const lines = ["complete -c interlock -f"];
  for (const { path, commands, options } of places) {
    const seen = path === "" ? [] : path.split(" ").map((word) => `__fish_seen_subcommand_from ${word}`);
    const children = commands.map((command) => command.name()).join(" ");
    const not = children === "" ? [] : [`not __fish_seen_subcommand_from ${children}`];
    const when = quoted([...seen, ...not].join("; and "));
    for (const command of commands) {
      lines.push(`complete -c interlock -n ${when} -a ${command.name()} -d ${quoted(command.description())}`);
    }
    for (const option of options) {
      const word = `-l ${option.long?.slice(2)}${takesWord(option) ? " -r -F" : ""}`;
      lines.push(`complete -c interlock -n ${when} ${word} -d ${quoted(option.description)}`);
    }
  }
  return lines.join("\n");
}

function takesWord(option: Option): boolean {
  return option.required || option.optional;
}

function names(option: Option): string[] {
  return [option.short, option.long].filter((name) => name !== undefined && name !== null);
}

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

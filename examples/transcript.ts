import { type Call, CallState, type Tool } from "../proto/interlock/v1/broker_pb.ts";
import { printable, stateWord } from "../services/cli/print.ts";
import { amountText } from "../services/shared/money.ts";
import type { Answer } from "./session.ts";

/** The story as a newcomer reads it: what the agent asked, what Interlock said, and why. */
export class Transcript {
  readonly #print: (line: string) => void;

  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  opening(address: string, session: string, tools: readonly Tool[]): void {
    this.#print(`An agent works through Interlock at ${address}; session ${session}.`);
    const names = tools.map((tool) => `${tool.facts?.name}${tool.needsApproval ? " (a person may be asked)" : ""}`);
    this.#print(`Tools it could be allowed to call: ${names.join(", ")}.`);
  }

  step(number: number, title: string): void {
    this.#print(`\n${number}. ${title}`);
  }

  asks(tool: string, args: unknown): void {
    this.#line("agent asks", `${tool} ${short(JSON.stringify(args), 96)}`);
  }

  says(answer: Answer): void {
    if (answer.kind === "refused") {
      const { error } = answer;
      this.#line("Interlock", `refused at ${error.metadata["stage"] || "the door"}: ${error.reason}`);
      this.#line("why", error.message);
      return;
    }
    const { call } = answer;
    this.#line("Interlock", `${stateWord(call.state)}${howItRan(call)}`);
    const rules = call.decision?.matchedRules.join(", ") ?? "";
    for (const reason of call.decision?.reasons ?? [])
      this.#line("why", rules === "" ? reason : `${reason} (${rules})`);
    const result = call.result?.resultJson || call.result?.stdout || "";
    if (result !== "") this.#line("result", short(result, 160));
    if (call.state !== CallState.SUCCEEDED) this.#line("error", call.result?.error || call.result?.stderr || "");
    if (call.charged.length > 0) this.#line("charged", call.charged.map(amountText).join(", "));
  }

  parked(call: Call, waits: boolean): void {
    const { decision } = call;
    const group = decision?.obligations?.approverGroup || "any reviewer";
    this.#line("Interlock", `waits for a person of ${group}; nothing is held open meanwhile`);
    for (const reason of decision?.reasons ?? []) this.#line("why", reason);
    if (waits) this.#line("you", `bin/interlock approvals approve ${call.approvalId}`);
  }

  approved(): void {
    this.#line("alice", "approves it, with her own key");
  }

  ending(kind: "as-told" | "skipped" | "otherwise", text: string): void {
    const mark = { "as-told": "ok", skipped: "skipped", otherwise: "NOT AS TOLD" }[kind];
    this.#line("=>", `${mark}: ${text}`);
  }

  closing(passed: boolean, session: string): void {
    this.#print(
      passed
        ? `\nEvery step ended as told. The record of it: bin/interlock audit tail; session ${session}.`
        : "\nThe story did not end as told: see the steps marked NOT AS TOLD.",
    );
  }

  #line(who: string, text: string): void {
    if (text !== "")
      this.#print(
        `   ${who.padEnd(11)} ${printable(text)
          .trimEnd()
          .replaceAll("\n", `\n${" ".repeat(15)}`)}`,
      );
  }
}

function howItRan(call: Call): string {
  const { result } = call;
  if (result?.enforcement === undefined) return "";
  const { kind, isolationClass } = result.enforcement;
  const wall = result.usage === undefined ? "" : `, ${result.usage.wallMs} ms`;
  return ` in ${kind === "isolate" ? "an isolate" : `a ${kind}`} (${isolationClass})${wall}`;
}

function short(text: string, max: number): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length <= max ? line : `${line.slice(0, max)}…`;
}

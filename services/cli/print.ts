import { type DescMessage, type MessageShape, toJson } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { ApprovalState } from "../../proto/interlock/v1/approvals_pb.ts";
import { type Call, CallState } from "../../proto/interlock/v1/broker_pb.ts";
import { type Amount, DecisionKind, Impact, RunEnd } from "../../proto/interlock/v1/types_pb.ts";
import { fromStatus } from "../shared/rpc/status.ts";

/** How things look on a terminal. Text from agents and tools is made harmless first. */

/** What a terminal may obey, or a reader may overlook: controls, formats such as the bidirectional ones, separators. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Control characters could move the cursor or hide text from whoever reads: they are shown, not obeyed. */
export function printable(text: string): string {
  return text.replace(UNSEEN, (c) => {
    if (c === "\n" || c === "\t") return c;
    return `\\u{${c.codePointAt(0)?.toString(16)}}`;
  });
}

/** Text with lines of its own, set under where it starts: none of them can pass for one of ours. */
export function indented(text: string, columns: number): string {
  return printable(text).replaceAll("\n", `\n${" ".repeat(columns)}`);
}

/** One JSON document on one line. JSON.stringify escapes some controls only; here a terminal sees none. */
export function jsonLine(value: unknown): string {
  const escaped = (c: string) =>
    Array.from({ length: c.length }, (_, i) => `\\u${c.charCodeAt(i).toString(16).padStart(4, "0")}`).join("");
  return JSON.stringify(value).replace(UNSEEN, escaped);
}

/** A message in protobuf's JSON, with empty lists and zeros too: what reads it finds every field. */
export function messageJson<S extends DescMessage>(schema: S, message: MessageShape<S>): string {
  return jsonLine(toJson(schema, message, { alwaysEmitImplicit: true }));
}

/** Columns as wide as their widest cell; a row is a line, whatever its cells say. */
export function table(cells: readonly (readonly string[])[]): string {
  const rows = cells.map((row) => row.map((cell) => printable(cell).replaceAll(/\s/g, " ")));
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** The member of a generated enum object, in lower-case words. */
export function enumWord(members: Readonly<Record<string, string | number>>, value: number): string {
  const found = Object.entries(members).find(([, member]) => member === value);
  return (found?.[0] ?? String(value)).toLowerCase().replaceAll("_", " ");
}

export const stateWord = (state: CallState): string => enumWord(CallState, state);
export const approvalWord = (state: ApprovalState): string => enumWord(ApprovalState, state);
export const impactWord = (impact: Impact): string => enumWord(Impact, impact);

export function money(value: bigint): string {
  const sign = value < 0n ? "-" : "";
  const micros = value < 0n ? -value : value;
  const cents = (micros % 1_000_000n)
    .toString()
    .padStart(6, "0")
    .replace(/0{1,4}$/, "");
  return `${sign}$${micros / 1_000_000n}.${cents}`;
}

export function amountText(amount: Amount): string {
  if (amount.unit === "usd_micros") return money(amount.value);
  return `${amount.value} ${amount.unit === "calls" && amount.value === 1n ? "call" : amount.unit}`;
}

export function quantity(unit: string, value: bigint): string {
  return unit === "usd_micros" ? money(value) : value.toString();
}

/** A call as its agent's developer wants to read it. */
export function callText(call: Call): string {
  const lines: string[] = [];
  const add = (name: string, value: string | undefined) => {
    if (value !== undefined && value !== "") lines.push(`${name.padEnd(10)} ${indented(value, 11)}`);
  };
  add("call", `${call.ref?.session}/${call.ref?.callId}`);
  add("tool", call.tool);
  add("state", stateWord(call.state));
  if (call.decision !== undefined) {
    add("decision", enumWord(DecisionKind, call.decision.kind));
    for (const reason of call.decision.reasons) add("", reason);
    add("rules", call.decision.matchedRules.join(", "));
  }
  if (call.refusal !== undefined) {
    const refusal = fromStatus(call.refusal);
    add("refused", `${refusal.reason}: ${refusal.message}`);
  }
  add("approval", call.approvalId);
  if (call.result !== undefined) {
    const { result } = call;
    if (result.end !== RunEnd.EXITED || result.exitCode !== 0) {
      const end = result.end === RunEnd.EXITED ? "" : `${enumWord(RunEnd, result.end)}, `;
      add("ended", `${end}exit code ${result.exitCode}`);
    }
    add("error", result.error);
    add("result", result.resultJson);
    if (result.resultJson === "") add("stdout", result.stdout.trimEnd());
    add("stderr", result.stderr.trimEnd());
    if (result.truncated) add("", "(output was cut: its head and tail are shown)");
  }
  for (const warning of call.warnings) add("warning", warning);
  add("charged", call.charged.map(amountText).join(", "));
  if (call.createTime !== undefined && call.endTime !== undefined) {
    add("took", `${timestampDate(call.endTime).getTime() - timestampDate(call.createTime).getTime()} ms`);
  }
  return lines.join("\n");
}

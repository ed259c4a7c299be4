import type { Obligations as WireObligations } from "../../proto/interlock/v1/types_pb.ts";
import { formatEgressRule, intersectEgress, parseEgressRules } from "../shared/egress.ts";
import type { Json } from "../shared/json.ts";
import type { Obligations, RunResult } from "./model.ts";

/** What policy imposes on a run, honoured: its ways out narrowed, its answer redacted, who is to be told. */

type Measures = Pick<Obligations, "egress" | "redact" | "notify">;

/** Everything that this broker, and the runner behind it, can honour on a run. */
const KNOWN: ReadonlySet<string> = new Set([
  ...["wall_ms", "cpu_ms", "memory_bytes", "output_bytes", "pids"],
  ...["egress", "redact", "notify"],
]);

/** Those that are imposed and not known here: a call under one of them is denied. */
export function unknownIn({ imposed }: Pick<WireObligations, "imposed">): string[] {
  return imposed.filter((name) => !KNOWN.has(name));
}

export function fromMeasures({ egress, redact, notify }: WireObligations): Measures {
  return {
    ...(egress && { egress: egress.rules }),
    ...(redact.length > 0 && { redact }),
    ...(notify.length > 0 && { notify }),
  };
}

export function toMeasures({ egress, redact = [], notify = [] }: Measures) {
  return { ...(egress && { egress: { rules: [...egress] } }), redact: [...redact], notify: [...notify] };
}

/** The ways out of a run: the manifest's, and of these only what policy leaves. @throws Error for a rule that is none. */
export function egressOf(manifest: readonly string[], { egress }: Measures): string[] {
  if (egress === undefined) return [...manifest];
  return intersectEgress(parseEgressRules(manifest), parseEgressRules(egress)).map(formatEgressRule);
}

export const REDACTED = "[redacted by policy]";

/** What is not JSON cannot be searched for fields, so all of it goes. */
export function redactResult(result: RunResult, fields: readonly string[]): RunResult {
  if (fields.length === 0) return result;
  const named = new Set(fields);
  const { resultJson, stdout, stderr, error } = result;
  const texts = { resultJson: redactJson(resultJson, named), stdout: redactJson(stdout, named) };
  return {
    ...result,
    resultJson: texts.resultJson ?? JSON.stringify(REDACTED),
    stdout: texts.stdout ?? REDACTED,
    stderr: stderr === "" ? "" : REDACTED,
    error: error === "" ? "" : REDACTED,
  };
}

function redactJson(text: string, fields: ReadonlySet<string>): string | undefined {
  if (text.trim() === "") return text;
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
  return typeof value === "object" ? JSON.stringify(redacted(value, fields)) : text;
}

/** Texts that are JSON themselves are searched too: tools answer with documents inside documents. */
function redacted(value: Json, fields: ReadonlySet<string>): Json {
  if (typeof value === "string") return /^\s*[[{]/.test(value) ? (redactJson(value, fields) ?? value) : value;
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item: Json) => redacted(item, fields));
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, fields.has(key) ? REDACTED : redacted(item, fields)]),
  );
}

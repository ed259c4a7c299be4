import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { v7 as uuidv7 } from "uuid";
import { PushPolicyRequestSchema } from "../../proto/interlock/v1/pdp_pb.ts";
import type { Journal } from "../shared/journal/journal.ts";
import { openSqliteJournal } from "../shared/journal/sqlite.ts";
import { silentLog } from "../shared/log.ts";
import type { Caller, HandlerContext } from "../shared/rpc/types.ts";
import { packBundle } from "./bundle.ts";
import type { ToolFacts } from "./facts.ts";
import { POLICIES } from "./fixture.ts";
import { type Pdp, type PdpOptions, startPdp } from "./service.ts";

/** For tests of this room: a pdp on a journal of its own, and the people who ask it. */

export const broker: Caller = { kind: "service", name: "broker" };
export const operator = personOf("olga");

export function personOf(name: string, change: Partial<Extract<Caller, { kind: "person" }>> = {}) {
  return { kind: "person", tenant: "demo", name, roles: ["operator"], groups: [], ...change } as const satisfies Caller;
}

export function contextOf(caller: Caller, signal = new AbortController().signal): HandlerContext {
  return { caller, signal, deadlineMs: undefined, traceParent: "", method: "" };
}

const TOOL = { version: "1.0.0", impact: "low", effects: [], groups: [] } as const;
export const TOOLS: readonly ToolFacts[] = [
  { ...TOOL, name: "orders.lookup" },
  { ...TOOL, name: "orders.refund", impact: "high", effects: ["spends"], groups: ["money"] },
  { ...TOOL, name: "mail.send", effects: ["sends"] },
];

/** A journal in a folder of its own, gone with it. */
export function openTestJournal(): Journal {
  const folder = mkdtempSync(join(tmpdir(), "interlock-pdp-journal-"));
  const journal = openSqliteJournal({ path: join(folder, "journal.db"), synchronous: "normal", readOnly: false });
  const close = journal[Symbol.asyncDispose].bind(journal);
  journal[Symbol.asyncDispose] = async () => {
    await close();
    rmSync(folder, { recursive: true, force: true });
  };
  return journal;
}

/** On a journal of its own, unless it is given one. */
export async function openPdp(policyDir = POLICIES, change: Partial<PdpOptions> = {}): Promise<Pdp> {
  const stack = new AsyncDisposableStack();
  const journal = change.journal ?? stack.use(openTestJournal());
  const options = { tools: TOOLS, trustedKeys: [], now: Date.now, log: silentLog, ...change, policyDir, journal };
  try {
    const pdp = stack.use(await startPdp(options));
    return { ...pdp, [Symbol.asyncDispose]: () => stack.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

/** A push of these files, as the command line sends it. */
export async function pushOf(
  files: Readonly<Record<string, string>>,
  change: { dryRun?: boolean; baseRevision?: string; changeId?: string; reason?: string } = {},
) {
  const bundle = await packBundle(new Map(Object.entries(files)));
  return create(PushPolicyRequestSchema, { bundle, reason: "A test.", changeId: uuidv7(), ...change });
}

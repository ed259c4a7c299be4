import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { v7 as uuidv7 } from "uuid";
import { onTestFinished } from "vitest";
import { type ApprovalSchema, type ApprovalState, ApprovalsService } from "../../proto/interlock/v1/approvals_pb.ts";
import { Impact } from "../../proto/interlock/v1/types_pb.ts";
import type { Journal } from "../shared/journal/journal.ts";
import { openSqliteJournal } from "../shared/journal/sqlite.ts";
import { silentLog } from "../shared/log.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { localClient } from "../shared/rpc/local.ts";
import { service } from "../shared/rpc/service.ts";
import type { Caller, Client } from "../shared/rpc/types.ts";
import { noEdits } from "./desk.ts";
import { HASH, NOW_MS, TTL_MS, uuid } from "./fixture.ts";
import { giveNotice } from "./notice.ts";
import { NOBODY, type People } from "./people.ts";
import { startApprovals } from "./service.ts";

/** The service as its callers meet it, on a real journal. */

export const broker: Caller = { kind: "service", name: "broker" };
export const agent: Caller = { kind: "agent", tenant: "demo", agent: "demo-agent" };
export const alice = person("alice", ["leads"]);
export const bob = person("bob", ["leads"]);
export const operator: Caller = {
  kind: "person",
  tenant: "demo",
  name: "olga",
  roles: ["operator"],
  groups: ["leads"],
};
export const stranger: Caller = {
  kind: "person",
  tenant: "other",
  name: "alice",
  roles: ["reviewer"],
  groups: ["leads"],
};

export type Approvals = Client<typeof ApprovalsService>;
export type Replica = AsyncDisposable & { readonly as: (caller: Caller) => Approvals };
export type ApprovalInit = Extract<MessageInitShape<typeof ApprovalSchema>, { $typeName?: never }>;

export function person(name: string, groups: string[]): Caller {
  return { kind: "person", tenant: "demo", name, roles: ["reviewer"], groups };
}

export async function openJournal(): Promise<Journal> {
  const directory = mkdtempSync(join(tmpdir(), "interlock-approvals-"));
  const journal = await openSqliteJournal({
    path: join(directory, "journal.db"),
    synchronous: "normal",
    readOnly: false,
  });
  onTestFinished(async () => {
    await journal[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });
  return journal;
}

export async function startReplica(
  journal: Journal,
  now: () => number = () => NOW_MS,
  people: People = NOBODY,
): Promise<Replica> {
  const approvals = await startApprovals({
    ...{ journal, now, log: silentLog, newId: uuidv7, people, checkEdit: noEdits },
    notice: (notice) => giveNotice([], notice),
    loginLink: ({ name }) => ({ url: `https://page.example/${name}`, untilMs: now() + 1_000 }),
  });
  const here = service(ApprovalsService, approvals.handlers);
  return {
    as: (caller) => localClient<typeof ApprovalsService>(here, { caller }),
    [Symbol.asyncDispose]: () => approvals[Symbol.asyncDispose](),
  };
}

/** Each id in a session of its own: within one session, calls that are alike are joined. */
export function approvalOf(overrides: ApprovalInit = {}) {
  const id = overrides.approvalId ?? uuid(1);
  const session = id === uuid(1) ? "s1" : `s-${id.slice(-12)}`;
  return {
    approvalId: uuid(1),
    ref: { session, callId: uuid(0xca11) },
    principal: { tenant: "demo", agent: "demo-agent", session, user: "uma" },
    tool: "orders.refund",
    toolDigest: "d".repeat(64),
    toolDescription: "Refunds an order.",
    argumentsJson: '{"order":"o-1"}',
    argumentsHash: HASH,
    reasons: ["A refund above 20 USD needs a lead's yes."],
    policyRevision: "e".repeat(64),
    price: [{ unit: "usd_micros", value: 20_000_000n }],
    labels: ["private-data"],
    sentence: "Pay {order} back.",
    impact: Impact.HIGH,
    effects: ["writes"],
    rules: ["policy.csv:12"],
    approverGroup: "leads",
    quorum: 1,
    expireTime: timestampFromMs(NOW_MS + TTL_MS),
    ...overrides,
  };
}

export async function refusalOf(promise: Promise<unknown>): Promise<RpcError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (error instanceof RpcError) return error;
  throw new Error("it was not refused", { cause: error });
}

/** The next ends after a position: as many as are asked for. */
export async function nextEnds(client: Approvals, after: string, count: number) {
  const ends: { position: string; id: string; state: ApprovalState | undefined }[] = [];
  for await (const { position, approval } of client.watchResolutions({ after })) {
    ends.push({ position, id: approval?.approvalId ?? "", state: approval?.state });
    if (ends.length === count) break;
  }
  return ends;
}

export const approvalId = uuid(1);
export const yes = { approvalId, argumentsHash: HASH, comment: "The order is real." };

import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type CandidateSchema,
  type PossibilitySchema,
  type ReplayedSchema,
  type RevisionSchema,
  type StandingSchema,
  StandingState,
} from "../../proto/interlock/v1/pdp_pb.ts";
import { RpcError } from "../shared/rpc/errors.ts";
import { type Bundle, BundleError, unpackBundle } from "./bundle.ts";
import type { Examined } from "./change.ts";
import type { Change, PolicyRefusal, PolicyState, RevisionRecord } from "./decider.ts";
import type { Policy } from "./load.ts";
import type { Possibility } from "./possible.ts";
import type { Replayed } from "./replay.ts";
import { toFacts, toKind } from "./wire.ts";

/** Revisions and what is known of them, between our own words and the contract's messages. */

const MAX_DIFF_LINES = 200;
const MAX_REASON_LENGTH = 500;
const CHANGE_ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** @throws RpcError naming the field. */
export async function parseBundle(packed: Uint8Array): Promise<Bundle> {
  try {
    return await unpackBundle(packed);
  } catch (error) {
    if (!(error instanceof BundleError)) throw error;
    throw invalid("bundle", `Change bundle: ${error.message}`);
  }
}

/** @throws RpcError naming the field. */
export function parseReason(reason: string): string {
  const text = reason.trim();
  if (text !== "" && text.length <= MAX_REASON_LENGTH) return text;
  throw invalid("reason", `Set reason: 1 to ${MAX_REASON_LENGTH} characters; it is kept in the record.`);
}

/** @throws RpcError naming the field. */
export function parseChangeId(id: string): string {
  if (CHANGE_ID.test(id)) return id;
  throw invalid("change_id", "Set change_id: a UUID in lower case; the same one again is the same change.");
}

function invalid(field: string, message: string): RpcError {
  return new RpcError({ code: "INVALID_ARGUMENT", reason: "FIELD_INVALID", field, message });
}

export function toReplayed({ decisions, sinceMs, changes }: Replayed): MessageInitShape<typeof ReplayedSchema> {
  return {
    decisions,
    ...(sinceMs === undefined ? {} : { since: timestampFromMs(sinceMs) }),
    changes: changes.map(({ subject, tool, before, after, rulesBefore, rulesAfter, count, example }) => ({
      ...{ subject, tool, count },
      ...{ before: toKind(before), after: toKind(after) },
      ...{ rulesBefore: [...rulesBefore], rulesAfter: [...rulesAfter] },
      example: toFacts(example),
    })),
  };
}

export function toCandidate(examined: Examined, base: Policy): MessageInitShape<typeof CandidateSchema> {
  const { policy, findings, results, replayed, diff } = examined;
  return {
    revision: policy?.revision ?? "",
    baseRevision: base.revision,
    rules: policy?.countRules() ?? 0,
    findings: findings.map(({ file, line, field, message, severity }) => ({
      ...{ file, field, message },
      ...{ line: line ?? 0, warning: severity === "warning" },
    })),
    tests: results.length,
    failedTests: results.flatMap(({ test: { file, line, name }, failure }) =>
      failure === undefined ? [] : [{ file, line, name, message: failure }],
    ),
    ...(replayed && { replayed: toReplayed(replayed) }),
    diff: diff.lines.slice(0, MAX_DIFF_LINES),
    linesAdded: diff.added,
    linesRemoved: diff.removed,
  };
}

export function toStanding(change: Change, state: PolicyState, files: string): MessageInitShape<typeof StandingSchema> {
  const { id, number, base, standing, approvedBy, approvalsNeeded, approverGroup } = change;
  const outdated = standing === "waiting" && base !== state.active;
  return {
    changeId: id,
    state: outdated ? StandingState.OUTDATED : STATES[standing],
    number,
    revision: state.revisions[number - 1]?.revision ?? files,
    approvedBy: [...approvedBy],
    approvalsNeeded,
    approverGroup,
  };
}

const STATES: Readonly<Record<Change["standing"], StandingState>> = {
  waiting: StandingState.WAITING,
  active: StandingState.ACTIVE,
  rejected: StandingState.REJECTED,
};

export function toRevision(record: RevisionRecord, state: PolicyState): MessageInitShape<typeof RevisionSchema> {
  const { number, revision, author, reason, timeMs, rules, added, removed, keyId } = record;
  return {
    ...{ number, revision, author, reason, rules, keyId },
    time: timestampFromMs(timeMs),
    ...{ linesAdded: added, linesRemoved: removed },
    active: state.active === number,
    shadow: state.shadow?.revision === revision,
  };
}

export function toPossibility({
  subject,
  tool,
  most,
  conditions,
}: Possibility): MessageInitShape<typeof PossibilitySchema> {
  return { subject, tool, most: toKind(most), conditions: [...conditions] };
}

export function refusalError(refusal: PolicyRefusal): RpcError {
  switch (refusal.kind) {
    case "outdated":
      return new RpcError({
        code: "ABORTED",
        reason: "POLICY_OUTDATED",
        message:
          "Another revision has become active since this change was looked at; look at it again, and push it anew.",
      });
    case "unknown_revision":
      return new RpcError({
        code: "NOT_FOUND",
        reason: "REVISION_NOT_FOUND",
        field: "number",
        message: "There is no such revision; interlock policy log lists them.",
      });
    case "unknown_change":
      return new RpcError({
        code: "NOT_FOUND",
        reason: "CHANGE_NOT_FOUND",
        field: "change_id",
        message: "There is no such change; interlock policy log lists those that wait.",
      });
    case "id_reused":
      return new RpcError({
        code: "ALREADY_EXISTS",
        reason: "CHANGE_ID_REUSED",
        field: "change_id",
        message: "This change_id is another change's; use a new UUID.",
      });
    case "own_change":
      return new RpcError({
        code: "PERMISSION_DENIED",
        reason: "OWN_CHANGE",
        message: "Nobody approves a change of their own; ask somebody else.",
      });
    case "over":
      return new RpcError({
        code: "FAILED_PRECONDITION",
        reason: "CHANGE_OVER",
        message: `This change does not wait any more: it is ${refusal.standing}.`,
      });
    case "files_missing":
      return new RpcError({
        code: "ABORTED",
        reason: "POLICY_FILES_MISSING",
        message: "The files of this revision are not in the record; push it again.",
      });
  }
}

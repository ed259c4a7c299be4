import type { Approval, End } from "./approval.ts";
import { type State, textOf } from "./state.ts";

export const MAX_LISTED = 1_000;
/** Characters of long texts in one list: at three bytes each it still fits the 4 MiB of a message. */
export const MAX_LISTED_TEXT = 1 << 20;

/** The newest first, as many as fit into one answer. */
export function listApprovals({ pending, ended }: State, wanted: "pending" | End): readonly Approval[] {
  const all =
    wanted === "pending" ? [...pending.values()] : [...ended.values()].filter((a) => a.ending?.end === wanted);
  all.sort((a, b) => b.createdAtMs - a.createdAtMs || (a.binding.approvalId < b.binding.approvalId ? 1 : -1));
  const listed: Approval[] = [];
  let text = 0;
  for (const approval of all) {
    text += textOf(approval) + approval.votes.reduce((sum, vote) => sum + vote.comment.length, 0);
    if (listed.length === MAX_LISTED || text > MAX_LISTED_TEXT) break;
    listed.push(approval);
  }
  return listed;
}

import { expect, test } from "vitest";
import type { Approval, Told } from "./approval.ts";
import { NOW_MS, newApproval } from "./fixture.ts";
import { DIGEST, dueOf } from "./teller.ts";

const MINUTE_MS = 60_000;
const asked = newApproval();
const pending: Approval = {
  ...asked,
  ...{ votes: [], edit: undefined, questions: [], joined: [], version: 1, ending: undefined },
};
const low: Approval = { ...pending, shown: { ...pending.shown, impact: "low", effects: ["reads"] } };
const ending = { end: "approved", by: ["alice"], reason: "", grantId: "", timeMs: NOW_MS } as const;
const ended: Approval = { ...pending, version: 2, ending };
const told: Told = { address: "C1/1.2", shows: 1, reminders: 0, timeMs: NOW_MS };

type What = "tell" | "digest" | `remind ${number}` | "nothing";
type Case = [name: string, approval: Approval, told: Told | undefined, minutes: number, what: What];
test.each<Case>([
  ["what is new", pending, undefined, 0, "tell"],
  ["low risk, too soon", low, undefined, 9.9, "nothing"],
  ["low risk, when it has been gathered for long enough", low, undefined, 10, "digest"],
  ["what ended before it was told", ended, undefined, 0, "nothing"],
  ["what somebody is telling", pending, { ...told, address: "", shows: 0 }, 0.3, "nothing"],
  ["what somebody began to tell and never finished", pending, { ...told, address: "", shows: 0 }, 0.4, "tell"],
  ["what has changed since", ended, told, 0, "tell"],
  ["what shows how it ended", ended, { ...told, shows: 2 }, 60, "nothing"],
  ["what was told together", ended, { ...told, address: `${DIGEST}sent` }, 60, "nothing"],
  ["what waits, before its first reminder", pending, told, 14.9, "nothing"],
  ["what waits, at its first reminder", pending, told, 15, "remind 1"],
  ["what was reminded of just now", pending, { ...told, reminders: 1 }, 29.9, "nothing"],
  ["what waits, at its second", pending, { ...told, reminders: 1 }, 30, "remind 2"],
  ["what was reminded of by nobody for long: once, not thrice", pending, told, 45, "remind 3"],
  ["what was reminded of three times", pending, { ...told, reminders: 3 }, 600, "nothing"],
])("%s", (_, approval, known, minutes, what) => {
  const channel = { wants: () => true, digestMs: 10 * MINUTE_MS };
  const due = (remindMs: number) => dueOf(channel, approval, known, { nowMs: NOW_MS + minutes * MINUTE_MS, remindMs });
  const found = due(15 * MINUTE_MS);
  expect(found?.kind === "remind" ? `remind ${found.times}` : (found?.kind ?? "nothing")).toBe(what);
  expect(due(0)?.kind).not.toBe("remind");
});

test("what a channel does not want it is not told", () => {
  const channel = { wants: () => false, digestMs: 0 };
  expect(dueOf(channel, pending, undefined, { nowMs: NOW_MS, remindMs: 0 })).toBeUndefined();
});

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { Executor } from "../shared/executor.ts";
import { openSqliteJournal } from "../shared/journal/sqlite.ts";
import type { Caller } from "../shared/rpc/types.ts";
import { ALLOW, ASK, callOf, EXACT_ONLY, NOW_MS, SUCCEEDED, summary } from "./fixture.ts";
import { Waiters } from "./live.ts";
import { parsePlace, Records } from "./records.ts";
import { type SessionCommand, sessionDecider } from "./session.ts";

/** Counts those who wait. */
class CountedWaiters extends Waiters {
  waiting = 0;
  override next(callId: string, signal: AbortSignal): Promise<void> {
    this.waiting++;
    return super.next(callId, signal).finally(() => this.waiting--);
  }
}

const PLACE = { tenant: "demo", session: "s1", callId: "call-1", agent: "demo-agent" };
const PARK: SessionCommand = {
  kind: "park",
  expiresMs: NOW_MS,
  call: callOf(),
  decision: ASK,
  price: [],
  basis: { labels: [], loop: "clear", limits: EXACT_ONLY },
};
const ADMIT: SessionCommand = { ...PARK, kind: "admit", attempt: "try-1", deadlineMs: NOW_MS, decision: ALLOW };
const END: SessionCommand = {
  kind: "end",
  ...{ call: summary(), decision: ALLOW, outcome: SUCCEEDED, charged: [], receipt: undefined, endMs: NOW_MS },
  attempts: ["try-1"],
  addLabels: [],
};

function open() {
  const directory = mkdtempSync(join(tmpdir(), "interlock-records-"));
  const journal = openSqliteJournal({ path: join(directory, "journal.db"), synchronous: "normal", readOnly: false });
  const sessions = new Executor({ journal, decider: sessionDecider, now: () => NOW_MS });
  onTestFinished(async () => {
    await sessions[Symbol.asyncDispose]();
    await journal[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true });
  });
  const waiters = new CountedWaiters();
  const execute = async (...commands: readonly SessionCommand[]) => {
    for (const command of commands) await sessions.execute("session.demo.s1", command);
  };
  return { records: new Records({ sessions, journal, waiters }), waiters, execute };
}

describe("a call as it stands", () => {
  test.each([
    ["pending_approval", [PARK]],
    ["running", [PARK, ADMIT]],
    ["running", [PARK, ADMIT, { kind: "cancel", callId: "call-1", reason: "enough" }]],
    ["ended", [PARK, ADMIT, END]],
    ["ended", [END]],
  ] as const)("%s: %#", async (kind, commands) => {
    const { records, execute } = open();
    await execute(...commands);
    expect(await records.view(PLACE)).toMatchObject({ call: summary(), progress: { kind } });
    expect(await records.view({ ...PLACE, agent: undefined })).toMatchObject({ progress: { kind } });
  });

  test.each([
    ["in another session", { ...PLACE, session: "s2" }],
    ["of another id", { ...PLACE, callId: "call-2" }],
    ["of another agent", { ...PLACE, agent: "other-agent" }],
    ["of another tenant", { ...PLACE, tenant: "other" }],
  ])("%s is not found", async (_, place) => {
    const { records, execute } = open();
    await execute(PARK);
    await expect(records.view(place)).rejects.toMatchObject({ code: "NOT_FOUND", reason: "CALL_NOT_FOUND" });
  });
});

describe("the end of a call", () => {
  test("is waited for over any other notice, and nobody is left waiting", async () => {
    const { records, waiters, execute } = open();
    await execute(PARK);
    const ended = records.ended(PLACE, new AbortController().signal);
    await expect.poll(() => waiters.waiting).toBe(1);
    await execute(ADMIT);
    waiters.notify("call-1");
    await expect.poll(() => waiters.waiting).toBe(1);
    await execute(END);
    waiters.notify("call-1");
    expect(await ended).toMatchObject({ progress: { kind: "ended" } });
    await expect.poll(() => waiters.waiting).toBe(0);
  });

  test("is answered at once when it is over, and nobody is left waiting", async () => {
    const { records, waiters, execute } = open();
    await execute(END);
    await records.ended(PLACE, new AbortController().signal);
    await expect.poll(() => waiters.waiting).toBe(0);
  });

  test("of a call that is not there is not waited for", async () => {
    const { records, waiters } = open();
    await expect(records.ended(PLACE, new AbortController().signal)).rejects.toMatchObject({
      reason: "CALL_NOT_FOUND",
    });
    await expect.poll(() => waiters.waiting).toBe(0);
  });

  test("is waited for no longer than the signal lets", async () => {
    const { records, waiters, execute } = open();
    await execute(PARK);
    const stop = new AbortController();
    const ended = records.ended(PLACE, stop.signal);
    await expect.poll(() => waiters.waiting).toBe(1);
    stop.abort(new Error("enough"));
    await expect(ended).rejects.toThrow("enough");
    expect(waiters.waiting).toBe(0);
  });
});

test.each<[string, Caller, string | undefined]>([
  ["an agent, its own calls", { kind: "agent", tenant: "demo", agent: "demo-agent" }, "demo-agent"],
  [
    "an operator, every agent's",
    { kind: "person", tenant: "demo", name: "o", roles: ["operator"], groups: [] },
    undefined,
  ],
])("is shown to %s", (_, caller, agent) => {
  expect(parsePlace({ $typeName: "interlock.v1.CallRef", session: "s1", callId: "call-1" }, caller)).toEqual({
    ...PLACE,
    agent,
  });
});

test("is shown to no service", () => {
  const ref = { $typeName: "interlock.v1.CallRef", session: "s1", callId: "call-1" } as const;
  expect(() => parsePlace(ref, { kind: "service", name: "edge" })).toThrow(
    expect.objectContaining({ reason: "AGENTS_ONLY" }),
  );
});
